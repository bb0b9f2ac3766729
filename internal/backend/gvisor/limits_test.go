package gvisor

import (
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

func TestMemoryLimit(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) { s.MemoryBytes = 128 << 20 })
	ok := create(t, b, nil)
	// A tail without newlines keeps all it reads.
	r, err := run(t, m, backend.ExecSpec{Args: []string{"sh", "-c", "head -c 400000000 /dev/zero | tail -n 1 | wc -c"}})
	if err != nil {
		t.Fatal(err)
	}
	e := wait(t, m)
	if e.Cause != flash.CauseOOM || e.ExitCode != 137 || !strings.Contains(e.Message, "128 MiB") {
		t.Errorf("the sandbox ended with %+v", e)
	}
	if r.Cause != flash.CauseOOM && r.Cause != flash.CauseSandboxGone {
		t.Errorf("the command ended with %+v", r)
	}
	if got := sh(t, ok, "echo alive"); got != "alive\n" {
		t.Errorf("its neighbour says %q", got)
	}
}

// TestFilesAreNotMemory writes more than the memory limit to the root file system.
func TestFilesAreNotMemory(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) { s.MemoryBytes = 96 << 20 })
	if got := sh(t, m, "for d in /root /tmp; do head -c 200000000 /dev/zero > $d/big && wc -c < $d/big && rm $d/big; done"); got != "200000000\n200000000\n" {
		t.Errorf("%q", got)
	}
}

func TestDiskLimit(t *testing.T) {
	b := open(t)
	b.cfg.DiskBytes = 16 << 20
	m := create(t, b, nil)
	r, err := run(t, m, backend.ExecSpec{Args: []string{"sh", "-c", "head -c 30000000 /dev/zero > /root/big"}})
	if err != nil || r.ExitCode == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestPidsLimit(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) { s.Pids = 20; s.MemoryBytes = 256 << 20 })
	r, err := run(t, m, backend.ExecSpec{Args: []string{"sh", "-c", "for i in $(seq 60); do sleep 30 & done; wait"}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.stderr, "can't fork") {
		t.Errorf("60 processes under a limit of 20: %+v", r)
	}
	s, err := m.Stats(t.Context())
	if err != nil || s.Pids > 20 {
		t.Errorf("Pids = %d, %v", s.Pids, err)
	}
	// The limit can't be lifted from inside.
	for _, script := range []string{
		"echo max > /sys/fs/cgroup/pids.max",
		"mount -o remount,rw /sys/fs/cgroup && echo max > /sys/fs/cgroup/pids.max",
		"mkdir /root/cg && mount -t cgroup2 none /root/cg && echo max > /root/cg/pids.max",
		"unshare -Urm sh -c 'mkdir -p /root/cg2; mount -t cgroup2 none /root/cg2 && echo max > /root/cg2/pids.max'",
		"unshare -Urm sh -c 'mkdir -p /root/cg2; mount -t cgroup2 none /root/cg2 && mkdir /root/cg2/x && echo $$ > /root/cg2/x/cgroup.procs && cat /root/cg2/x/cgroup.procs && ls /root/cg2'",
	} {
		r, err := run(t, m, backend.ExecSpec{Args: []string{"sh", "-c", script}})
		if err == nil && r.ExitCode == 0 {
			t.Errorf("%s: %+v", script, r)
		}
	}
	// A fork bomb, and the sandbox still answers and ends it.
	p, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"sh", "-c", "b() { b | b & }; b; sleep 60"}})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	if s, err := m.Stats(t.Context()); err != nil || s.Pids > 22 {
		t.Errorf("Pids = %d, %v", s.Pids, err)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if st, err := m.Status(t.Context()); err != nil || st != backend.StatusRunning {
		t.Errorf("status %s, %v", st, err)
	}
}

func TestCPULimit(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) { s.CPUs = 0.25 })
	p, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"sh", "-c", "while :; do :; done"}})
	if err != nil {
		t.Fatal(err)
	}
	before, err := m.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	after, err := m.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	used := float64(after.CPU-before.CPU) / float64(after.At.Sub(before.At))
	if used > 0.35 || used < 0.02 {
		t.Errorf("used %.2f cores under a limit of 0.25", used)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
