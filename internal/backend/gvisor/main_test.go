package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

// stateVar, when set, makes the test binary play a second daemon, see
// secondDaemon.
const secondVar = "FSB_GVISOR_TEST_SECOND"

func TestMain(m *testing.M) {
	RunIfReexec()
	if arg := os.Getenv(secondVar); arg != "" {
		os.Exit(secondDaemon(arg))
	}
	code := m.Run()
	if rootfs.dir != "" {
		_ = os.RemoveAll(rootfs.dir)
	}
	os.Exit(code)
}

// rootfs is the one image of these tests: Debian's busybox.
var rootfs struct {
	once sync.Once
	dir  string
	err  error
}

// image returns the test image.
func image(t testing.TB) testImage {
	t.Helper()
	rootfs.once.Do(func() { rootfs.dir, rootfs.err = makeRootfs() })
	if rootfs.err != nil {
		t.Fatal(rootfs.err)
	}
	return testImage(filepath.Join(rootfs.dir, "rootfs"))
}

// makeRootfs downloads busybox-static and lays out a root file system.
func makeRootfs() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "fsb-gvisor-image-"); err != nil {
		return "", err
	}
	if out, err := command(dir, "apt-get", "-q", "download", "busybox-static"); err != nil {
		return dir, fmt.Errorf("download busybox-static: %w: %s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return dir, fmt.Errorf("packages: %v, %v", debs, err)
	}
	root := filepath.Join(dir, "rootfs")
	if out, err := command(dir, "dpkg-deb", "-x", debs[0], root); err != nil {
		return dir, fmt.Errorf("unpack busybox-static: %w: %s", err, out)
	}
	for _, d := range []string{"etc", "tmp", "root", "home/dev", "var/lib", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return dir, err
		}
	}
	bin := filepath.Join(root, "bin")
	if b, err := filepath.Glob(filepath.Join(root, "*/busybox")); err != nil || len(b) != 1 {
		return dir, fmt.Errorf("busybox: %v, %v", b, err)
	}
	for _, f := range []struct{ name, content string }{
		{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndev:x:1000:1000::/home/dev:/bin/sh\n"},
		{"etc/group", "root:x:0:\ndev:x:1000:\nextra:x:2000:dev\n"},
		{"bin/script", "#!/bin/sh\necho script\n"},
		{"bin/noexec", "#!/bin/sh\n"},
		{"bin/garbage", "this is no program"},
	} {
		mode := os.FileMode(0o755)
		if f.name == "bin/noexec" || filepath.Dir(f.name) == "etc" {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(root, f.name), []byte(f.content), mode); err != nil {
			return dir, err
		}
	}
	list, err := command(dir, filepath.Join(bin, "busybox"), "--list")
	if err != nil {
		return dir, err
	}
	for _, name := range bytes.Fields(list) {
		err := os.Symlink("busybox", filepath.Join(bin, string(name)))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return dir, err
		}
	}
	return dir, os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky)
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
	cfg := Config{StateDir: dir, DebugDir: os.Getenv("FSB_GVISOR_DEBUG")}
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

func checkNoCgroups(t testing.TB, parent string) {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*" + parent)
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("/sys/fs/cgroup" + parent)
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

func secondDaemon(string) int { return 1 }
