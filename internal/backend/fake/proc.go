package fake

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stat is the part of /proc/PID/stat that is used here.
type stat struct {
	pid, ppid, session int
	state              byte
	ticks              uint64 // CPU time, waited-for children included, in clock ticks
	threads            uint64
	start              uint64
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name may hold spaces and parentheses; what follows it does not.
	i := bytes.LastIndexByte(data, ')')
	f := strings.Fields(string(data[i+1:]))
	if i < 0 || len(f) < 22 {
		return stat{}, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i-3], 10, 64); return v } // numbered as in proc(5)
	return stat{
		pid: pid, ppid: int(n(4)), session: int(n(6)), state: f[0][0],
		ticks: n(14) + n(15) + n(16) + n(17), threads: n(20), start: n(22),
	}, nil
}

func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' }

// alive reports whether the process that started at start still runs. One that
// has ended and is ours to collect is collected.
func alive(pid int, start uint64) bool {
	st, err := readStat(pid)
	if pid <= 0 || err != nil || st.start != start {
		return false
	}
	if !st.dead() {
		return true
	}
	if st.ppid == os.Getpid() {
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
	return false
}

// waitEnd blocks until the process that started at start has ended. The error
// is the context's.
func waitEnd(ctx context.Context, pid int, start uint64) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil { // ESRCH: it has ended
		return ctx.Err()
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = f.Close() }()
	if !alive(pid, start) {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	err = conn.Read(func(fd uintptr) bool {
		n, perr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return perr == nil && n > 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	alive(pid, start) // collects it
	return err
}

// processes returns the live processes of the machine in dir: those that carry
// its marker, the rest of the sessions that such processes lead, and all their
// descendants, oldest first.
func processes(dir string) ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := make(map[int]stat, len(entries))
	in := map[int]bool{}
	want := []byte(marker + "=" + dir)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		st, err := readStat(pid)
		if err != nil || st.dead() {
			continue
		}
		all[pid] = st
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil {
			continue
		}
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(kv, want) {
				in[pid] = true
			}
		}
	}
	delete(in, os.Getpid())
	for grown := true; grown; {
		grown = false
		for pid, st := range all {
			if !in[pid] && (in[st.ppid] || in[st.session]) {
				in[pid], grown = true, true
			}
		}
	}
	var out []stat
	for pid := range in {
		out = append(out, all[pid])
	}
	// Parents first: a signal that kills all must not let a shell see its
	// child die and go on.
	slices.SortFunc(out, func(a, b stat) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.pid, b.pid)) })
	return out, nil
}

// signalAll sends sig to all processes of the machine in dir, again and again
// until settled reports of each that nothing more is to be done. It is told
// whether the process has had the signal.
func signalAll(dir string, sig unix.Signal, settled func(s stat, had bool) bool) error {
	had := map[int]bool{}
	deadline := time.Now().Add(stopDeadline)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		procs, err := processes(dir)
		if err != nil {
			return err
		}
		open := 0
		for _, p := range procs {
			if settled(p, had[p.pid]) {
				continue
			}
			had[p.pid] = true
			open++
			if err := unix.Kill(p.pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("signal %s to process %d: %w", sig, p.pid, err)
			}
		}
		if open == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes did not react to signal %s within %s", open, sig, stopDeadline)
		}
		time.Sleep(pause)
	}
}

// readIO returns the bytes a process has had read from and written to disks;
// zeros where that may not be known.
func readIO(pid int) (read, written uint64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch name {
		case "read_bytes":
			read = n
		case "write_bytes":
			written = n
		}
	}
	return read, written
}

// memory returns the bytes of memory a process holds. The number in
// /proc/PID/stat is off by what each CPU has not added up yet, which for a
// small process is all there is.
func memory(pid int) uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Rss:" {
			kib, _ := strconv.ParseUint(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
