package gvisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/backendtest"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

func TestMain(m *testing.M) {
	RunIfReexec()
	if arg := os.Getenv(victimVar); arg != "" {
		os.Exit(victim(arg))
	}
	backendtest.Main(cleaner{m}, func(arg string) (backend.Backend, backend.Image, error) {
		words := strings.Split(arg, "\n")
		b, err := New(Config{StateDir: words[0], DebugDir: os.Getenv("FSB_GVISOR_DEBUG"), exe: words[2]})
		return b, testImage(words[1]), err
	})
}

// cleaner removes the images after the tests.
type cleaner struct{ m *testing.M }

func (c cleaner) Run() int {
	code := c.m.Run()
	if images.dir != "" {
		_ = os.RemoveAll(images.dir)
	}
	removeExecutable()
	return code
}

// images are the unpacked images of these tests, by kind.
var images struct {
	sync.Mutex
	dir    string
	byKind map[string]testImage
}

// image returns the test image.
func image(t testing.TB) testImage { return imageOf(t, "busybox") }

func imageOf(t testing.TB, kind string) testImage {
	t.Helper()
	images.Lock()
	defer images.Unlock()
	if i, ok := images.byKind[kind]; ok {
		return i
	}
	if images.dir == "" {
		dir, err := os.MkdirTemp("", "fsb-gvisor-image-")
		if err != nil {
			t.Fatal(err)
		}
		images.dir, images.byKind = dir, map[string]testImage{}
	}
	i, err := unpack(filepath.Join(images.dir, kind), kind)
	if err != nil {
		t.Fatal(err)
	}
	images.byKind[kind] = i
	return i
}

// unpack builds one of the test images and unpacks its layers.
func unpack(dir, kind string) (testImage, error) {
	layout, root := dir+".oci", dir
	if out, err := command(".", "bash", "../../../test/images/build.sh", kind, layout); err != nil {
		return "", fmt.Errorf("build image %s: %w: %s", kind, err, out)
	}
	var index struct{ Manifests []struct{ Digest string } }
	if err := readJSON(filepath.Join(layout, "index.json"), &index); err != nil {
		return "", err
	}
	blob := func(digest string) string {
		return filepath.Join(layout, "blobs", strings.Replace(digest, ":", "/", 1))
	}
	var manifest struct{ Layers []struct{ Digest string } }
	if err := readJSON(blob(index.Manifests[0].Digest), &manifest); err != nil {
		return "", err
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	for _, l := range manifest.Layers {
		if out, err := command(root, "tar", "-xpzf", blob(l.Digest)); err != nil {
			return "", fmt.Errorf("unpack: %w: %s", err, out)
		}
	}
	// Programs that can't be started.
	for _, f := range []struct {
		name, content string
		mode          os.FileMode
	}{
		{"bin/noexec", "#!/bin/sh\n", 0o644},
		{"bin/garbage", "this is no program", 0o755},
	} {
		if err := os.WriteFile(filepath.Join(root, f.name), []byte(f.content), f.mode); err != nil {
			return "", err
		}
	}
	group, err := os.OpenFile(filepath.Join(root, "etc/group"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = group.WriteString("extra:x:2000:user\n")
	return testImage(root), errors.Join(err, group.Close())
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func command(dir, name string, args ...string) ([]byte, error) {
	c := exec.Command(name, args...)
	c.Dir = dir
	return c.CombinedOutput()
}

type testImage string

func (testImage) Reference() string           { return "busybox" }
func (testImage) Digest() string              { return "sha256:busybox" }
func (testImage) Config() backend.ImageConfig { return backend.ImageConfig{} }

func (i testImage) Rootfs(context.Context) (string, error) { return string(i), nil }

// open returns a backend with a state directory of its own, and checks in the
// end that nothing is left in it.
func open(t testing.TB) *Backend {
	t.Helper()
	testenv.Require(t, testenv.GVisor)
	dir, err := os.MkdirTemp("", "fsb-gvisor-")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{StateDir: dir, DebugDir: os.Getenv("FSB_GVISOR_DEBUG"), exe: executable(t)}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for h, err := range b.List(context.Background()) {
			if err != nil {
				t.Error(err)
				continue
			}
			m, err := b.Attach(context.Background(), h)
			if err == nil {
				err = m.Destroy(context.Background())
			}
			if err != nil {
				t.Errorf("clean up %s: %v", h.ID, err)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(dir); err != nil {
			t.Errorf("the state directory is not empty: %v", err)
		}
		checkNoCgroups(t, b.cgroup)
	})
	return b
}

func checkNoCgroups(t testing.TB, prefix string) {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*" + prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("/sys/fs/cgroup" + prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	if found = append(found, more...); len(found) > 0 {
		t.Errorf("cgroups are left: %v", found)
	}
}

// spec asks for a machine that sleeps.
func spec(t testing.TB) backend.Spec {
	return backend.Spec{
		ID: flash.NewSandboxID(), Image: image(t),
		Args: []string{"/bin/sh"}, Env: []string{"PATH=/bin:/usr/bin", "GREETING=hello"}, Dir: "/", Hostname: "box",
	}
}

// create makes a machine from a spec, as changed by edit.
func create(t testing.TB, b *Backend, edit func(*backend.Spec)) *machine {
	t.Helper()
	s := spec(t)
	if edit != nil {
		edit(&s)
	}
	m, err := b.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return m.(*machine)
}

// result is what came of a command.
type result struct {
	stdout, stderr string
	flash.Ending
}

// run runs a command in a machine.
func run(t testing.TB, m backend.Machine, s backend.ExecSpec) (result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var out, errOut bytes.Buffer
	if s.Stdout == nil {
		s.Stdout = &out
	}
	if s.Stderr == nil {
		s.Stderr = &errOut
	}
	p, err := m.(backend.Execer).Exec(ctx, s)
	if err != nil {
		return result{}, err
	}
	e, err := p.Wait(ctx)
	return result{out.String(), errOut.String(), e}, err
}

// sh runs a shell script in a machine and returns its stdout; it must succeed.
func sh(t testing.TB, m backend.Machine, script string) string {
	t.Helper()
	r, err := run(t, m, backend.ExecSpec{Args: []string{"sh", "-c", script}})
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	if r.Cause != flash.CauseExited || r.ExitCode != 0 {
		t.Fatalf("%s: %+v", script, r)
	}
	return r.stdout
}

// wait waits for a machine to end.
func wait(t testing.TB, m backend.Machine) flash.Ending {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e, err := m.Wait(ctx)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return e
}
