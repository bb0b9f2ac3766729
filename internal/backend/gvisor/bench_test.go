package gvisor

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/backendtest"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
)

func BenchmarkSuite(b *testing.B) { backendtest.Bench(b, subject(b)) }

// compare runs two things in turn, in random order, and reports the medians,
// the 99th percentile of the second and the ratio of the medians. On a busy
// host only the ratio means anything.
func compare(b *testing.B, bare, ours func() time.Duration) {
	b.Helper()
	var took [2][]time.Duration
	for b.Loop() {
		first := rand.IntN(2)
		for _, i := range []int{first, 1 - first} {
			took[i] = append(took[i], []func() time.Duration{bare, ours}[i]())
		}
	}
	at := func(i int, q float64) float64 {
		slices.Sort(took[i])
		return took[i][int(q*float64(len(took[i])-1))].Seconds() * 1000
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at(0, 0.5), "bare-ms")
	b.ReportMetric(at(1, 0.5), "ours-ms")
	b.ReportMetric(at(1, 0.99), "ours-p99-ms")
	b.ReportMetric(at(1, 0.5)/at(0, 0.5), "ratio")
}

// BenchmarkExec compares with gVisor's own client, a pipe for the output, and
// nothing else.
func BenchmarkExec(b *testing.B) {
	be := open(b)
	m := create(b, be, nil)
	args, err := m.execArgs(backend.ExecSpec{Args: []string{"true"}})
	if err != nil {
		b.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	bare := func() time.Duration {
		begin := time.Now()
		r, w, err := os.Pipe()
		if err != nil {
			b.Fatal(err)
		}
		a := *args
		a.FilePayload = control.FilePayload{FilePayload: urpc.FilePayload{Files: []*os.File{null, w, w}}, GuestFDs: []int{0, 1, 2}}
		var pid int32
		bareCall(b, m, boot.ContMgrExecuteAsync, &a, &pid)
		_ = w.Close()
		var ws uint32
		bareCall(b, m, boot.ContMgrWaitPID, &boot.WaitPIDArgs{PID: pid, CID: containerID}, &ws)
		_ = r.Close()
		return time.Since(begin)
	}
	compare(b, bare, func() time.Duration {
		begin := time.Now()
		if _, err := run(b, m, backend.ExecSpec{Args: []string{"true"}}); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	})
}

func bareCall(b *testing.B, m *machine, method string, arg, result any) {
	b.Helper()
	c, err := client.ConnectTo(m.socket())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if err := c.Call(method, arg, result); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCreate compares a create, and one with a first command, with runsc's
// command line: run -detach of the same image with the same limits.
func BenchmarkCreate(b *testing.B) {
	for _, withExec := range []bool{false, true} {
		b.Run(fmt.Sprintf("FirstExec=%v", withExec), func(b *testing.B) { benchmarkCreate(b, withExec) })
	}
}

func benchmarkCreate(b *testing.B, withExec bool) {
	be := open(b)
	edit := func(s *backend.Spec) {
		s.Args, s.MemoryBytes, s.CPUs, s.Pids = []string{"sleep", "1000"}, 256<<20, 1, 512
	}
	root := b.TempDir() // runsc keeps a network namespace in it
	defer syscall.Unmount(root+"/null-netns", syscall.MNT_DETACH)
	bare := func() time.Duration {
		id := flash.NewSandboxID()
		dir := be.dir(id)
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		sp := spec(b)
		edit(&sp)
		rec, err := be.newRecord(b.Context(), sp)
		if err != nil {
			b.Fatal(err)
		}
		rec.Cgroup = be.cgroupOf(id)
		m := newMachine(be, id, rec)
		s := ociSpec(&rec, dir)
		s.Annotations = nil
		if err := writeJSON(dir, "config.json", s); err != nil {
			b.Fatal(err)
		}
		runsc := func(args ...string) {
			c := exec.Command("/proc/self/exe", append([]string{"--root=" + root, "--network=none"}, args...)...)
			c.Args[0] = "runsc"
			if err := c.Run(); err != nil {
				b.Fatal(err)
			}
		}
		begin := time.Now()
		runsc("run", "-detach", "--bundle", dir, string(id))
		took := time.Since(begin)
		runsc("delete", "-force", string(id))
		if err := m.remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		return took
	}
	compare(b, bare, func() time.Duration {
		begin := time.Now()
		m := create(b, be, edit)
		if withExec {
			if _, err := run(b, m, backend.ExecSpec{Args: []string{"true"}}); err != nil {
				b.Fatal(err)
			}
		}
		took := time.Since(begin)
		if err := m.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
		return took
	})
}

// BenchmarkRestore compares with runsc's command line: restore -detach of the
// same state.
func BenchmarkRestore(b *testing.B) {
	be := open(b)
	m := create(b, be, nil)
	state := b.TempDir()
	v, err := m.Snapshot(b.Context(), state)
	if err != nil {
		b.Fatal(err)
	}
	bare := func() time.Duration {
		r := newMachine(be, flash.NewSandboxID(), m.rec)
		r.rec.Cgroup = be.cgroupOf(r.id)
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := be.writeBundle(r, true); err != nil {
			b.Fatal(err)
		}
		flags, err := be.runscFlags(r)
		if err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		c := exec.Command("/proc/self/exe", append(flags, "restore", "-detach", "--bundle", r.dir, "--image-path", state, containerID)...)
		c.Args[0] = "runsc"
		if err := c.Run(); err != nil {
			b.Fatal(err)
		}
		took := time.Since(begin)
		if err := r.remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		return took
	}
	compare(b, bare, func() time.Duration {
		begin := time.Now()
		r, err := be.Restore(b.Context(), spec(b), state, v)
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(begin)
		if err := r.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
		return took
	})
}
