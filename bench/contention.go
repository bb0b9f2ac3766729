package main

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spinTime is how long each core computes to find out whether it is shared.
const spinTime = 8 * time.Millisecond

// contention returns how much longer than its CPU time it takes to compute on
// all cores at once: 1 when nobody else computes. A bare spawn is too short to
// be held up much by neighbours, a sandbox's start is not.
func contention() float64 {
	var mu sync.Mutex
	var wall, cpu time.Duration
	each(runtime.NumCPU(), func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		began, used := time.Now(), threadTime()
		spent := time.Duration(0)
		for spent < spinTime {
			spent = threadTime() - used
		}
		mu.Lock()
		wall, cpu = wall+time.Since(began), cpu+spent
		mu.Unlock()
	})
	return float64(wall) / float64(cpu)
}

// threadTime is the CPU time of this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 1 << 62 // ends any wait for it
	}
	return time.Duration(t.Nano())
}
