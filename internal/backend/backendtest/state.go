package backendtest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

func (s *suite) stateTests() map[string]func(*testing.T) {
	tests := map[string]func(*testing.T){}
	if s.can(backend.CapPause) {
		tests["Pause"] = s.testPause
		tests["PausedCanBeDestroyed"] = s.testPausedCanBeDestroyed
	}
	if s.can(backend.CapSnapshot) {
		tests["SnapshotCancelled"] = s.testSnapshotCancelled
	}
	if s.can(backend.CapSnapshot) && s.can(backend.CapRestore) {
		tests["SnapshotRestore"] = s.testSnapshotRestore
		tests["SnapshotOfPaused"] = s.testSnapshotOfPaused
	}
	return tests
}

// counting is a main command that counts in a file, twenty times a second at
// most.
var counting = command("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > n.new; mv n.new n; sleep 0.05; done")

const tick = 50 * time.Millisecond

func (s *suite) count(t *testing.T, m backend.Machine) int {
	t.Helper()
	n, err := strconv.Atoi(s.sh(t, m, "until [ -e n ]; do sleep 0.02; done; cat n"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func pauser(t *testing.T, m backend.Machine) backend.Pauser {
	t.Helper()
	p, ok := backend.As[backend.Pauser](m)
	if !ok {
		t.Fatalf("%T is no Pauser, but the backend says it can pause", m)
	}
	return p
}

func (s *suite) paused(t *testing.T, m backend.Machine) {
	t.Helper()
	if st := status(t, m); st != backend.StatusPaused {
		t.Errorf("Status is %s, want paused", st)
	}
	_, err := execer(t, m).Exec(soon(t), shell("true"))
	want(t, "Exec in a paused machine", err, flash.Conflict)
}

func (s *suite) testPause(t *testing.T) {
	m := s.machine(t, counting)
	p := pauser(t, m)
	var out syncBuffer
	es := shell("echo up; sleep 1; echo done")
	es.Stdout = &out
	running := s.start(t, m, es)
	eventually(t, "an exec runs", func() bool { return out.String() == "up\n" })

	first, start := s.count(t, m), time.Now()
	for range 2 {
		if err := p.Pause(soon(t)); err != nil {
			t.Fatalf("Pause: %v", err)
		}
	}
	awake := time.Since(start)
	s.paused(t, m)
	time.Sleep(2 * time.Second)
	if out.String() != "up\n" {
		t.Errorf("an exec went on in a paused machine: %q", out.String())
	}
	start = time.Now()
	for range 2 {
		if err := p.Resume(soon(t)); err != nil {
			t.Fatalf("Resume: %v", err)
		}
	}
	if st := status(t, m); st != backend.StatusRunning {
		t.Errorf("Status after Resume is %s", st)
	}
	second := s.count(t, m)
	awake += time.Since(start)
	if most := int(awake/tick) + 2; second-first > most {
		t.Errorf("it counted from %d to %d, though it was awake for %s only", first, second, awake)
	}
	eventually(t, "it counts again", func() bool { return s.count(t, m) > second })
	if e, err := running.Wait(soon(t)); err != nil || e.ExitCode != 0 || out.String() != "up\ndone\n" {
		t.Errorf("the exec that was paused ends with %+v, %v, %q", e, err, out.String())
	}
}

func (s *suite) testPausedCanBeDestroyed(t *testing.T) {
	m := s.machine(t)
	if err := pauser(t, m).Pause(soon(t)); err != nil {
		t.Fatalf("Pause: %v", err)
	}
	b := s.open(t) // another process finds it paused
	again, err := b.Attach(soon(t), m.Handle())
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	s.paused(t, again)
	if err := again.Destroy(soon(t)); err != nil {
		t.Errorf("Destroy of a paused machine: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// snapshot takes one into a directory of its own and checks what Saved says.
func (s *suite) snapshot(t *testing.T, m backend.Machine) (string, backend.Saved) {
	t.Helper()
	sn, ok := backend.As[backend.Snapshotter](m)
	if !ok {
		t.Fatalf("%T is no Snapshotter, but the backend says it can snapshot", m)
	}
	dir := t.TempDir()
	v, err := sn.Snapshot(soon(t), dir)
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	t.Cleanup(func() {
		r, _ := backend.As[backend.Restorer](s.b)
		for range 2 {
			if err := r.Discard(soon(t), dir, v); err != nil {
				t.Errorf("Discard: %v", err)
			}
		}
	})
	if fi, err := os.Stat(filepath.Join(dir, v.StateFile)); v.StateFile == "" || err != nil || fi.IsDir() {
		t.Errorf("StateFile is %q: %v", v.StateFile, err)
	}
	if v.Memory != (v.MemFile != "") {
		t.Errorf("Memory is %v, MemFile %q", v.Memory, v.MemFile)
	}
	if v.MemFile != "" {
		if _, err := os.Stat(filepath.Join(dir, v.MemFile)); err != nil {
			t.Errorf("MemFile: %v", err)
		}
	}
	if v.Detail == "" {
		t.Error("Detail is empty")
	}
	s.paused(t, m)
	return dir, v
}

// restore makes a machine of a snapshot of one with the same change.
func (s *suite) restore(t *testing.T, dir string, v backend.Saved, change ...func(*backend.Spec)) backend.Machine {
	t.Helper()
	r, ok := backend.As[backend.Restorer](s.b)
	if !ok {
		t.Fatalf("%T is no Restorer, but says it can restore", s.b)
	}
	m, err := r.Restore(soon(t), s.spec(t, change...), dir, v)
	if err != nil {
		t.Fatalf("Restore: %v", err)
	}
	destroyLater(t, m)
	if st := status(t, m); st != backend.StatusRunning {
		t.Errorf("Status after Restore is %s", st)
	}
	return m
}

func (s *suite) testSnapshotRestore(t *testing.T) {
	m := s.machine(t, counting)
	s.sh(t, m, "echo data > kept; mkdir -p deep/er; ln -s ../kept deep/link; printf x > deep/er/exec; chmod 750 deep/er/exec")
	// Far enough that a command run anew is not mistaken for one that went on.
	eventually(t, "it has counted", func() bool { return s.count(t, m) >= 20 })
	at := s.count(t, m)
	dir, v := s.snapshot(t, m)

	a, b := s.restore(t, dir, v, counting), s.restore(t, dir, v, counting)
	if err := pauser(t, m).Resume(soon(t)); err != nil {
		t.Fatalf("Resume: %v", err)
	}
	s.sh(t, m, "echo later > later")
	for _, r := range []backend.Machine{a, b} {
		if out := s.sh(t, r, "cat kept deep/link; ls -l deep/er/exec | cut -c1-10; ls later 2>/dev/null || echo no later"); out != "data\ndata\n-rwxr-x---\nno later" {
			t.Errorf("a restored machine holds %q", out)
		}
	}
	if v.Memory {
		n := s.count(t, a)
		if n < at {
			t.Errorf("the restored machine counts %d, it was at %d when it was saved", n, at)
		}
		eventually(t, "the restored machine counts on", func() bool { return s.count(t, a) > n })
	} else {
		eventually(t, "the restored machine's command runs anew", func() bool { return s.count(t, a) > 0 })
	}
	s.sh(t, a, "echo a > own")
	if out := s.sh(t, b, "ls own 2>/dev/null || echo none"); out != "none" {
		t.Error("two machines restored from one snapshot share files")
	}
	if err := a.Destroy(soon(t)); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	for _, r := range []backend.Machine{b, m} {
		if out := s.sh(t, r, "cat kept"); out != "data" {
			t.Errorf("after another one was destroyed, a machine holds %q", out)
		}
	}
}

func (s *suite) testSnapshotOfPaused(t *testing.T) {
	m := s.machine(t)
	s.sh(t, m, "echo data > kept")
	if err := pauser(t, m).Pause(soon(t)); err != nil {
		t.Fatalf("Pause: %v", err)
	}
	dir, v := s.snapshot(t, m)
	if err := m.Destroy(soon(t)); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	r := s.restore(t, dir, v) // the snapshot outlives its machine
	if out := s.sh(t, r, "cat kept"); out != "data" {
		t.Errorf("the restored machine holds %q", out)
	}
	h := r.Handle()
	if rp := s.second(t, request{Attach: &h, Exec: []string{"cat", "kept"}}); rp.Stdout != "data\n" {
		t.Errorf("a second process finds %+v in the restored machine", rp)
	}
}

// testSnapshotCancelled: a snapshot that fails leaves the machine as it was.
func (s *suite) testSnapshotCancelled(t *testing.T) {
	m := s.machine(t)
	sn, ok := backend.As[backend.Snapshotter](m)
	if !ok {
		t.Fatalf("%T is no Snapshotter, but the backend says it can snapshot", m)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := sn.Snapshot(ctx, t.TempDir()); err == nil {
		t.Error("Snapshot with a context that has ended succeeds")
	}
	if st := status(t, m); st != backend.StatusRunning {
		t.Errorf("Status after a snapshot that failed is %s", st)
	}
	if out := s.sh(t, m, "echo ok"); out != "ok" {
		t.Errorf("exec after a snapshot that failed says %q", out)
	}
}
