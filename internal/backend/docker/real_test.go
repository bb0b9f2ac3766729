package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/docker"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

// setup is a backend on an engine, with an image.
type setup struct {
	t     *testing.T
	b     *docker.Backend
	host  string
	image backend.Image
}

// on returns a probed backend with an owner of its own, and checks at the end
// that the engine holds nothing of it.
func on(t *testing.T, host string, cfg docker.Config) *setup {
	t.Helper()
	cfg.Host, cfg.Owner, cfg.Logger = host, fmt.Sprintf("test-%d-%s", os.Getpid(), t.Name()), logger()
	s := &setup{t: t, b: docker.New(cfg), host: host, image: newImages(t).get(t, "busybox")}
	if err := s.b.Probe(t.Context()); err != nil {
		t.Fatalf("Probe: %v", err)
	}
	t.Cleanup(func() {
		for _, what := range []string{"ps -aq", "images -q"} {
			if left := s.docker(what + " --filter label=flash-sandbox.owner=" + cfg.Owner); left != "" {
				t.Errorf("docker %s still shows %q", what, left)
			}
		}
		if err := s.b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// docker runs the engine's own command line client.
func (s *setup) docker(args string) string {
	s.t.Helper()
	out, err := exec.Command("docker", append([]string{"-H", s.host}, strings.Fields(args)...)...).CombinedOutput()
	if err != nil {
		s.t.Errorf("docker %s: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *setup) spec(args ...string) backend.Spec {
	if len(args) == 0 {
		args = []string{"sleep", "1000000"}
	}
	return backend.Spec{
		ID: flash.NewSandboxID(), Image: s.image, Args: args, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/",
		MemoryBytes: 128 << 20, CPUs: 1, Pids: 128,
	}
}

// machine makes a machine and destroys it at the end of the test.
func (s *setup) machine(args ...string) *docker.Machine {
	s.t.Helper()
	m, err := s.b.Create(s.t.Context(), s.spec(args...))
	if err != nil {
		s.t.Fatalf("Create: %v", err)
	}
	s.destroyLater(m)
	return m.(*docker.Machine)
}

func (s *setup) destroyLater(m backend.Machine) {
	s.t.Cleanup(func() {
		if err := m.Destroy(context.Background()); err != nil {
			s.t.Errorf("Destroy: %v", err)
		}
	})
}

// sh runs a script and returns what it says.
func sh(ctx context.Context, m backend.Machine, script string) (string, error) {
	var out, errs bytes.Buffer
	p, err := m.(backend.Execer).Exec(ctx, backend.ExecSpec{Args: []string{"sh", "-c", script}, Stdout: &out, Stderr: &errs})
	if err != nil {
		return "", err
	}
	end, err := p.Wait(ctx)
	if err != nil {
		return "", err
	}
	if end.ExitCode != 0 {
		return out.String(), fmt.Errorf("%+v: %s", end, errs.String())
	}
	return out.String(), nil
}

// says fails the test unless a script says want.
func says(t *testing.T, m backend.Machine, script, want string) {
	t.Helper()
	got, err := sh(t.Context(), m, script)
	if err != nil || strings.TrimSpace(got) != want {
		t.Errorf("%s: says %q, %v, want %q", script, got, err, want)
	}
}

// privateEngine starts an engine for one test that mistreats it.
func privateEngine(t *testing.T, flags ...string) (dir, host string) {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Docker)
	dir, err := os.MkdirTemp("", "fsbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := dockerd("stop", dir); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	host, err = dockerd("start", dir, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return dir, host
}

// eventually waits until f succeeds.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func TestProbeSaysWhatIsMissing(t *testing.T) {
	testenv.Require(t, testenv.Docker)
	b := docker.New(docker.Config{Host: testenv.DockerHost(), Runtime: "no-such-runtime", Owner: "x"})
	defer func() { _ = b.Close() }()
	err := b.Probe(t.Context())
	if !errors.Is(err, flash.Unavailable) || !strings.Contains(flash.AsError(err).Message, `no runtime "no-such-runtime"; it has `) {
		t.Errorf("Probe with an unknown runtime: %v", err)
	}
	if b.Info().Name != "docker/no-such-runtime" {
		t.Errorf("name is %q", b.Info().Name)
	}
}

// TestRestart restarts the engine under machines: they end, which their
// waiters are told, and the same backend goes on with the new engine.
func TestRestart(t *testing.T) {
	for _, how := range []string{"restart", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir, host := privateEngine(t)
			s := on(t, host, docker.Config{})
			m := s.machine()
			ended := make(chan flash.Ending, 1)
			go func() {
				end, err := m.Wait(t.Context())
				if err == nil {
					ended <- end
				}
			}()
			says(t, m, "echo before", "before")
			start := "restart"
			if how == "kill" {
				start = "start"
				if _, err := dockerd("kill", dir); err != nil {
					t.Fatal(err)
				}
				if _, err := sh(t.Context(), m, "true"); !errors.Is(err, flash.Unavailable) {
					t.Errorf("exec without an engine: %v, want unavailable", err)
				}
			}
			if _, err := dockerd(start, dir); err != nil {
				t.Fatal(err)
			}
			select {
			case end := <-ended:
				if end.Cause == flash.CauseExited && end.ExitCode == 0 {
					t.Errorf("the machine that the restart killed ended with %+v", end)
				}
				t.Logf("the machine ended with %+v", end)
			case <-time.After(60 * time.Second):
				t.Error("Wait goes on after the restart")
			}
			again, err := s.b.Attach(t.Context(), m.Handle())
			if err != nil {
				t.Fatalf("Attach after the restart: %v", err)
			}
			if st, err := again.Status(t.Context()); err != nil || st != backend.StatusEnded {
				t.Errorf("Status after the restart: %s, %v, want ended", st, err)
			}
			says(t, s.machine(), "echo after", "after")
		})
	}
}

// TestLiveRestore restarts an engine that leaves containers running meanwhile.
func TestLiveRestore(t *testing.T) {
	t.Parallel()
	dir, host := privateEngine(t, "--live-restore")
	s := on(t, host, docker.Config{})
	m := s.machine("sh", "-c", "until [ -e /stop ]; do sleep 0.1; done; exit 43")
	ended := make(chan flash.Ending, 1)
	go func() {
		end, err := m.Wait(t.Context())
		if err == nil {
			ended <- end
		}
	}()
	says(t, m, "echo before", "before")
	if _, err := dockerd("restart", dir, "--live-restore"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "exec after the restart", func() error { _, err := sh(t.Context(), m, "touch /mark"); return err })
	again, err := s.b.Attach(t.Context(), m.Handle())
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	says(t, again, "ls /mark", "/mark")
	select {
	case end := <-ended:
		t.Errorf("Wait says %+v of a machine that runs", end)
	default:
	}
	says(t, again, "touch /stop", "")
	select {
	case end := <-ended:
		if end.Cause != flash.CauseExited || end.ExitCode != 43 {
			t.Errorf("the machine ended with %+v, want exited with 43", end)
		}
	case <-time.After(60 * time.Second):
		t.Error("Wait does not see the end after the restart")
	}
}

// TestFrozenEngine stops the engine's process: calls end in time, then fail
// fast, and all is well when it goes on. What it makes late does not stay.
func TestFrozenEngine(t *testing.T) {
	t.Parallel()
	dir, host := privateEngine(t)
	s := on(t, host, docker.Config{})
	m := s.machine()
	says(t, m, "echo before", "before")
	pid, err := os.ReadFile(filepath.Join(dir, "d.pid"))
	if err != nil {
		t.Fatal(err)
	}
	signal := func(sig string) {
		if out, err := exec.Command("kill", "-"+sig, strings.TrimSpace(string(pid))).CombinedOutput(); err != nil {
			t.Fatalf("kill: %v %s", err, out)
		}
	}
	// A command that runs on can be killed without the engine.
	p, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	signal("STOP")
	defer signal("CONT")
	start := time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := sh(t.Context(), m, "true"); !errors.Is(err, flash.Unavailable) {
				t.Errorf("exec with a frozen engine: %v, want unavailable", err)
			}
		})
		wg.Go(func() {
			made, err := s.b.Create(t.Context(), s.spec())
			if !errors.Is(err, flash.Unavailable) {
				t.Errorf("Create with a frozen engine: %v, want unavailable", err)
			}
			if err == nil {
				s.destroyLater(made)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("calls of a frozen engine took %s", took)
	}
	start = time.Now()
	if _, err := m.Status(t.Context()); !errors.Is(err, flash.Unavailable) {
		t.Errorf("Status with a frozen engine: %v, want unavailable", err)
	}
	if took := time.Since(start); took > 200*time.Millisecond {
		t.Errorf("the call after the failed ones took %s", took)
	}
	if _, err := m.Stats(t.Context()); err != nil {
		t.Errorf("Stats need no engine, but: %v", err)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Errorf("Kill needs no engine, but: %v", err)
	}
	signal("CONT")
	eventually(t, "exec after the engine went on", func() error { _, err := sh(t.Context(), m, "true"); return err })
	if end, err := p.Wait(t.Context()); err != nil || end.ExitCode != 137 && end.ExitCode != -1 {
		t.Errorf("the killed command ended with %+v, %v", end, err)
	}
	eventually(t, "only one machine is left", func() error {
		if err := s.b.Probe(t.Context()); err != nil {
			return err
		}
		n := 0
		for _, err := range s.b.List(t.Context()) {
			if err != nil {
				return err
			}
			n++
		}
		if n != 1 {
			return fmt.Errorf("%d are there", n)
		}
		return nil
	})
}

// counted counts how often an image is written.
type counted struct {
	backend.ArchiveImage
	n atomic.Int32
}

func TestImages(t *testing.T) {
	t.Parallel()
	testenv.Require(t, testenv.Root, testenv.Docker)
	_, host := privateEngine(t) // one that has no images
	s := on(t, host, docker.Config{})
	img := &countedImage{counted: counted{ArchiveImage: s.image.(backend.ArchiveImage)}}
	s.image = img
	if _, found, err := s.b.FindImage(t.Context(), "busybox"); found || err != nil {
		t.Errorf("FindImage of what is not there: %v, %v", found, err)
	}
	for _, ref := range []string{"UPPER", "../x", "oci:/tmp/x", "a b", ""} {
		if _, found, err := s.b.FindImage(t.Context(), ref); found || err != nil {
			t.Errorf("FindImage of %q: %v, %v", ref, found, err)
		}
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			m, err := s.b.Create(t.Context(), s.spec())
			if err != nil {
				t.Errorf("Create: %v", err)
				return
			}
			s.destroyLater(m)
		})
	}
	wg.Wait()
	if n := img.n.Load(); n != 1 {
		t.Errorf("six creates at once loaded the image %d times", n)
	}
	// The engine's own images, found as docker run would.
	s.docker("tag " + img.ConfigDigest() + " busybox:latest")
	s.docker("tag " + img.ConfigDigest() + " example.com:5000/a/b:1")
	for _, ref := range []string{"busybox", "docker.io/library/busybox:latest", "example.com:5000/a/b:1", img.ConfigDigest()} {
		own, found, err := s.b.FindImage(t.Context(), ref)
		if err != nil || !found {
			t.Errorf("FindImage of %s: %v, %v", ref, found, err)
			continue
		}
		if own.Reference() != ref || own.Digest() != img.ConfigDigest() || len(own.Config().Cmd) == 0 {
			t.Errorf("FindImage of %s: %q, %q, %+v", ref, own.Reference(), own.Digest(), own.Config())
		}
		s.image = own
		says(t, s.machine(), "echo own", "own")
	}
	// An image that fails to be written fails the create, with nothing left.
	bad := &brokenImage{ArchiveImage: img.ArchiveImage}
	sp := s.spec()
	sp.Image = bad
	if _, err := s.b.Create(t.Context(), sp); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("Create from an image that can't be written: %v", err)
	}
}

type countedImage struct{ counted }

func (i *countedImage) WriteArchive(ctx context.Context, w io.Writer, tag string) error {
	i.n.Add(1)
	return i.ArchiveImage.WriteArchive(ctx, w, tag)
}

// brokenImage is another image whose archive breaks off.
type brokenImage struct{ backend.ArchiveImage }

func (*brokenImage) ConfigDigest() string { return "sha256:" + strings.Repeat("0", 64) }
func (*brokenImage) WriteArchive(_ context.Context, w io.Writer, _ string) error {
	if _, err := w.Write(make([]byte, 512)); err != nil {
		return err
	}
	return errors.New("disk on fire")
}

// TestSnapshotImages follows the committed image through its life.
func TestSnapshotImages(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Docker)
	s := on(t, testenv.DockerHost(), docker.Config{})
	m := s.machine()
	says(t, m, "echo kept > /kept; echo ok", "ok")
	dir := t.TempDir()
	saved, err := m.Snapshot(t.Context(), dir)
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	if saved.Memory || saved.MemFile != "" || !strings.Contains(saved.Detail, "memory") {
		t.Errorf("Snapshot says %+v", saved)
	}
	var inFile map[string]string
	if b, err := os.ReadFile(filepath.Join(dir, saved.StateFile)); err != nil || json.Unmarshal(b, &inFile) != nil {
		t.Errorf("state file: %s, %v", b, err)
	}
	restore := func() backend.Machine {
		t.Helper()
		r, err := s.b.Restore(t.Context(), s.spec(), dir, saved)
		if err != nil {
			t.Fatalf("Restore: %v", err)
		}
		s.destroyLater(r)
		says(t, r, "cat /kept", "kept")
		return r
	}
	a, b := restore(), restore()
	// Machines outlive the snapshot they were made from.
	for range 2 {
		if err := s.b.Discard(t.Context(), dir, saved); err != nil {
			t.Fatalf("Discard: %v", err)
		}
	}
	says(t, a, "cat /kept", "kept")
	if _, err := s.b.Restore(t.Context(), s.spec(), dir, backend.Saved{Data: json.RawMessage(`{"image":"sha256:` + strings.Repeat("1", 64) + `"}`)}); !errors.Is(err, flash.Conflict) || flash.AsError(err).Reason != "snapshot_lost" {
		t.Errorf("Restore of a snapshot whose image has gone: %v, want a conflict, snapshot_lost", err)
	}
	for _, r := range []backend.Machine{a, b} { // setup checks that the image goes with the last
		if err := r.Destroy(t.Context()); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	}
	// After a crash in Snapshot only the folder is known.
	if _, err := m.Snapshot(t.Context(), dir); err != nil {
		t.Fatalf("Snapshot again: %v", err)
	}
	if err := s.b.Discard(t.Context(), dir, backend.Saved{}); err != nil {
		t.Errorf("Discard by folder: %v", err)
	}
}

// TestBurst runs first commands in machines that are being made at the same
// time, where engines lose output most easily.
func TestBurst(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Docker)
	s := on(t, testenv.DockerHost(), docker.Config{})
	const machines, execs, atOnce = 24, 20, 8
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	var lost atomic.Int32
	start := time.Now()
	for range machines {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			m, err := s.b.Create(t.Context(), s.spec())
			if err != nil {
				t.Errorf("Create: %v", err)
				return
			}
			for i := range execs {
				want := fmt.Sprintf("hi %d\n", i)
				if got, err := sh(t.Context(), m, fmt.Sprintf("echo hi %d", i)); err != nil || got != want {
					lost.Add(1)
					t.Errorf("exec says %q, %v, want %q", got, err, want)
				}
			}
			if err := m.Destroy(t.Context()); err != nil {
				t.Errorf("Destroy: %v", err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d machines with %d execs each, %d at once: %s, %d wrong", machines, execs, atOnce, time.Since(start).Round(time.Millisecond), lost.Load())
}
