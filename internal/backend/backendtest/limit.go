package backendtest

import (
	"strconv"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

func (s *suite) limitTests() map[string]func(*testing.T) {
	tests := map[string]func(*testing.T){}
	if s.can(backend.CapMetrics) {
		tests["Stats"] = s.testStats
	}
	if !s.info.SharesHost {
		tests["LimitMemoryOfMain"] = s.testLimitMemoryOfMain
		tests["LimitMemoryOfExec"] = s.testLimitMemoryOfExec
		tests["LimitPids"] = s.testLimitPids
		if s.can(backend.CapMetrics) {
			tests["LimitCPU"] = s.testLimitCPU
		}
	}
	return tests
}

func stats(t testing.TB, m backend.Machine) backend.Stats {
	t.Helper()
	r, ok := backend.As[backend.StatsReader](m)
	if !ok {
		t.Fatalf("%T is no StatsReader, but the backend says it has metrics", m)
	}
	st, err := r.Stats(soon(t))
	if err != nil {
		t.Fatalf("Stats: %v", err)
	}
	return st
}

func (s *suite) testStats(t *testing.T) {
	var limit int64
	m := s.machine(t, func(sp *backend.Spec) { limit = sp.MemoryBytes })
	first := stats(t, m)
	if d := time.Since(first.At); d < 0 || d > patience {
		t.Errorf("At is %s ago", d)
	}
	if first.MemoryLimitBytes != uint64(limit) {
		t.Errorf("MemoryLimitBytes is %d, asked for was %d", first.MemoryLimitBytes, limit)
	}
	if first.Pids < 1 || first.Pids > 500 {
		t.Errorf("Pids is %d in a machine that idles", first.Pids)
	}
	if first.MemoryUsageBytes == 0 || first.MemoryUsageBytes > uint64(limit) {
		t.Errorf("MemoryUsageBytes is %d in a machine that idles", first.MemoryUsageBytes)
	}
	// dd keeps a buffer of 64 MiB while nobody reads what it writes.
	p := s.start(t, m, shell("dd if=/dev/zero bs=67108864 count=1 2>/dev/null | sleep 300"))
	eventually(t, "64 MiB more are in use, in two processes more", func() bool {
		now := stats(t, m)
		return now.MemoryUsageBytes > first.MemoryUsageBytes+48*mib && now.Pids > first.Pids
	})
	if err := p.Kill(soon(t)); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	if _, err := p.Wait(soon(t)); err != nil {
		t.Fatalf("Wait: %v", err)
	}
	eventually(t, "the memory is given back", func() bool {
		return stats(t, m).MemoryUsageBytes < first.MemoryUsageBytes+48*mib
	})
	before := stats(t, m)
	s.sh(t, m, busy, "3")
	after := stats(t, m)
	// At least two seconds have passed, on a host that others may use as well.
	wall := after.At.Sub(before.At)
	if used := after.CPU - before.CPU; used < 200*time.Millisecond || used > 2*wall+time.Second {
		t.Errorf("a busy loop used %s of CPU time in %s", used, wall)
	}
}

// busy burns CPU time for as many seconds as its argument says.
const busy = `end=$(($(date +%s)+$1)); while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; done`

// hog allocates n bytes and touches them.
func hog(n int64) []string {
	return []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=" + strconv.FormatInt(n, 10), "count=1000000"}
}

// limited asks for the least memory that makes the test quick.
func (s *suite) limited(sp *backend.Spec) { sp.MemoryBytes = max(96*mib, s.info.MinMemory) }

func (s *suite) testLimitMemoryOfMain(t *testing.T) {
	m := s.machine(t, s.limited, func(sp *backend.Spec) { sp.Args = hog(2 * sp.MemoryBytes) })
	if e := end(t, m); e.Cause != flash.CauseOOM {
		t.Errorf("a machine that took twice its memory ended with %+v, want cause %s", e, flash.CauseOOM)
	}
}

func (s *suite) testLimitMemoryOfExec(t *testing.T) {
	var limit int64
	m := s.machine(t, s.limited, func(sp *backend.Spec) { limit = sp.MemoryBytes })
	p := s.start(t, m, backend.ExecSpec{Args: hog(2 * limit)})
	e, err := p.Wait(soon(t))
	if err == nil && e.Cause == flash.CauseExited && e.ExitCode == 0 {
		t.Errorf("a process that takes twice the memory limit ends well")
	}
	if err != nil && soon(t).Err() != nil {
		t.Fatalf("Wait: %v", err)
	}
	if status(t, m) == backend.StatusEnded {
		if e := end(t, m); e.Cause != flash.CauseOOM {
			t.Errorf("the machine died of it with %+v, want cause %s", e, flash.CauseOOM)
		}
		return
	}
	if out := s.sh(t, m, "echo alive"); out != "alive" {
		t.Errorf("the machine lives and says %q", out)
	}
}

func (s *suite) testLimitCPU(t *testing.T) {
	m := s.machine(t, func(sp *backend.Spec) { sp.CPUs = 0.5 })
	// Two loops, so that a machine of several threads would show.
	p := s.start(t, m, shell("(while :; do :; done) & while :; do :; done"))
	time.Sleep(time.Second)
	first := stats(t, m)
	time.Sleep(4 * time.Second)
	second := stats(t, m)
	if err := p.Kill(soon(t)); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	share := float64(second.CPU-first.CPU) / float64(second.At.Sub(first.At))
	// The host may be busy with other things, which only lowers the share.
	if share < 0.1 || share > 0.7 {
		t.Errorf("a busy machine with a limit of 0.5 cores used %.2f", share)
	}
}

func (s *suite) testLimitPids(t *testing.T) {
	const limit = 100
	m := s.machine(t, func(sp *backend.Spec) { sp.Pids = limit })
	var out syncBuffer
	// Bounded, so that a limit that does not bite harms nobody.
	es := shell("i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); echo $i; done; echo all; wait")
	es.Stdout, es.Stderr = &out, &out
	p, err := execer(t, m).Exec(soon(t), es)
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	if e, err := p.Wait(within(t, quickly)); err == nil {
		t.Logf("the bomb ended with %+v", e)
	}
	if n := len(out.String()); n == 0 {
		t.Error("the bomb never ran")
	}
	if s.can(backend.CapMetrics) {
		if n := stats(t, m).Pids; n > 3*limit { // an engine may count its own threads for each
			t.Errorf("%d processes run with a limit of %d", n, limit)
		}
	}
	if err := p.Kill(soon(t)); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if tail := out.String(); len(tail) >= 4 && tail[len(tail)-4:] == "all\n" {
		t.Errorf("300 processes could be started with a limit of %d", limit)
	}
	if st := status(t, m); st != backend.StatusRunning {
		t.Fatalf("the machine is %s after the bomb", st)
	}
	eventually(t, "an exec works after the bomb", func() bool {
		r, err := s.try(t, m, shell("echo alive"))
		return err == nil && r.stdout == "alive\n"
	})
}
