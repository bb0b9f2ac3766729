package gvisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// TestPhaseAfterCrash: a daemon that died between the record of a pause or
// resume and the act, or between the act and its record.
func TestPhaseAfterCrash(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) { s.Args = []string{"sh", "-c", "while :; do sleep 0.01; done"} })
	for _, c := range []struct {
		paused bool
		on     phase
	}{
		{false, phasePausing}, {false, phaseResuming}, {true, phasePausing}, {true, phaseResuming},
	} {
		if c.paused {
			if err := m.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.setPhase(c.on); err != nil {
			t.Fatal(err)
		}
		want := backend.StatusRunning
		if c.paused {
			want = backend.StatusPaused
		}
		if got, err := m.Status(t.Context()); err != nil || got != want {
			t.Errorf("%+v: status %s, %v", c, got, err)
		}
		if err := m.setPhase(c.on); err != nil {
			t.Fatal(err)
		}
		if err := m.Resume(t.Context()); err != nil { // one too many would kill the sentry
			t.Errorf("%+v: Resume: %v", c, err)
		}
		if got := sh(t, m, "echo alive"); got != "alive\n" {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestSnapshotWithoutSpace: a snapshot that can't be written leaves the
// sandbox as it was.
func TestSnapshotWithoutSpace(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	sh(t, m, "head -c 20000000 /dev/urandom > /root/data")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	if _, err := m.Snapshot(t.Context(), dir); !errors.Is(err, flash.Exhausted) {
		t.Errorf("a snapshot of 20 MB into 4 MB gives %v, want %s", err, flash.Exhausted)
	}
	if st, err := m.Status(t.Context()); err != nil || st != backend.StatusRunning {
		t.Fatalf("status %s, %v", st, err)
	}
	if got := sh(t, m, "wc -c < /root/data"); got != "20000000\n" {
		t.Errorf("%q", got)
	}
	v, err := m.Snapshot(t.Context(), t.TempDir())
	if err != nil {
		t.Errorf("a snapshot with space enough: %v, %+v", err, v)
	}
}

// TestRestored checks what the suite can't know: the new host name and limits,
// the fate of processes that exec started, and that a child of the main
// command goes on.
func TestRestored(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) {
		s.Args = []string{"sh", "-c", "x=memory; echo $$ > /root/pid; trap 'echo $x > /root/told' USR1; while :; do read -t 1 line; done"} // without a fork, which the limit would refuse it
		s.Pids, s.MemoryBytes, s.CPUs = 30, 256<<20, 1
		s.User = "0"
	})
	sh(t, m, "echo disk > /root/file; echo tmp > /tmp/file; echo shm > /dev/shm/file; ln -s file /root/link")
	background, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	v, err := m.Snapshot(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s := spec(t)
	s.Hostname, s.Pids, s.MemoryBytes, s.CPUs = "second", 25, 200<<20, 0.5
	r, err := b.Restore(t.Context(), s, dir, v)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ script, want string }{
		{"cat /root/file /tmp/file /dev/shm/file /root/link", "disk\ntmp\nshm\ndisk"},
		{"hostname", "second"},
		{"kill -USR1 $(cat /root/pid); sleep 0.3; cat /root/told", "memory"},
		{"cat /sys/fs/cgroup/sandbox/pids.max", "25"},
		{"pgrep -f 'sleep 1000' || echo none", "none"},
		{"for i in $(seq 40); do sleep 5 & done 2>&1 | grep -c fork", "1"},
	} {
		if got := strings.TrimSpace(sh(t, r, c.script)); got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
	}
	st, err := r.(*machine).Stats(t.Context())
	if err != nil || st.MemoryLimitBytes != 200<<20 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, m, "cat /root/told 2>/dev/null || echo untouched"); got != "untouched\n" {
		t.Errorf("the saved sandbox has what was done in the restored one: %q", got)
	}
	if err := background.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	// A snapshot of a restored sandbox.
	dir2 := t.TempDir()
	if v, err = r.(*machine).Snapshot(t.Context(), dir2); err != nil {
		t.Fatal(err)
	}
	again, err := b.Restore(t.Context(), spec(t), dir2, v)
	if err != nil {
		t.Fatal(err)
	}
	if got := sh(t, again, "cat /root/told"); got != "memory\n" {
		t.Errorf("%q", got)
	}
}

func TestRestoreOfGarbage(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	dir := t.TempDir()
	v, err := m.Snapshot(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, v.StateFile), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Restore(t.Context(), spec(t), dir, v); !errors.Is(err, flash.Invalid) || !strings.Contains(err.Error(), "snapshot") {
		t.Errorf("restore of garbage: %v", err)
	}
	other := v
	other.Data = []byte(`{"Version":"release-1"}`)
	if _, err := b.Restore(t.Context(), spec(t), dir, other); err == nil || !strings.Contains(err.Error(), "release-1") {
		t.Errorf("a state of another gVisor: %v", err)
	}
	n := 0
	for range b.List(t.Context()) {
		n++
	}
	if n != 1 {
		t.Errorf("%d machines, want the saved one", n)
	}
}

// TestProcessNumberUsedAgain: a record whose process number now belongs to
// another process.
func TestProcessNumberUsedAgain(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	r := m.rec
	r.Started++
	if err := writeJSON(m.dir, recordFile, r); err != nil {
		t.Fatal(err)
	}
	b2, err := New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b2.Close()
	again, err := b2.Attach(t.Context(), m.Handle())
	if err != nil {
		t.Fatal(err)
	}
	if e := wait(t, again); e.Cause != flash.CauseUnknown || e.ExitCode != -1 {
		t.Errorf("%+v", e)
	}
}

// TestSentryKilled: the sandbox's kernel is killed from outside.
func TestSentryKilled(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	p, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"sleep", "100"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(m.rec.SandboxPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := wait(t, m); e.Cause != flash.CauseSignal || e.ExitCode != 137 {
		t.Errorf("machine: %+v", e)
	}
	if e, err := p.Wait(t.Context()); err != nil || e.Cause != flash.CauseSandboxGone {
		t.Errorf("process: %+v, %v", e, err)
	}
	if _, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"true"}}); err == nil {
		t.Error("a command starts in an ended sandbox")
	}
	if _, err := m.Stats(t.Context()); err == nil {
		t.Error("an ended sandbox has counters")
	}
}

// TestBackgroundKeepsItsOutput: a process in the background whose output
// nobody reads any more is neither waited for nor killed by it.
func TestBackgroundKeepsItsOutput(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	begin := time.Now()
	if got := sh(t, m, "(while :; do echo noise; echo x >> /root/beats; sleep 0.1; done) & sleep 0.3; echo done"); !strings.HasSuffix(got, "done\n") {
		t.Errorf("%q", got)
	}
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("it took %s", d)
	}
	first := sh(t, m, "wc -l < /root/beats")
	time.Sleep(500 * time.Millisecond)
	if second := sh(t, m, "wc -l < /root/beats"); first == second {
		t.Errorf("the process in the background has stopped at %s", first)
	}
}

// TestLeaks: a hundred commands and some sandboxes leave no goroutine and no
// file open.
func TestLeaks(t *testing.T) {
	b := open(t)
	round := func() {
		m := create(t, b, nil)
		for range 20 {
			sh(t, m, "echo x")
		}
		if _, err := run(t, m, backend.ExecSpec{Args: []string{"none"}}); err == nil {
			t.Error("no error")
		}
		if err := m.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	settled := func() []string { // launchers may still be on their way out
		time.Sleep(infancy)
		return openFiles(t)
	}
	round()
	before := settled()
	for range 4 {
		round()
	}
	if after := settled(); len(after) > len(before) {
		t.Errorf("%d files were open, now %d: %v", len(before), len(after), after)
	}
}

func openFiles(t testing.TB) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil {
			names = append(names, name)
		}
	}
	return names
}
