package gvisor

import (
	"os"
	"os/exec"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/backendtest"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/sandbox"
)

func BenchmarkSuite(b *testing.B) { backendtest.Bench(b, subject(b)) }

// BenchmarkBareExec is the floor of exec: gVisor's own client, a pipe for the
// output, and nothing else.
func BenchmarkBareExec(b *testing.B) {
	be := open(b)
	m := create(b, be, nil)
	sb := sandbox.Sandbox{ID: containerID, ControlSocketPath: m.socket()}
	args, err := m.execArgs(backend.ExecSpec{Args: []string{"true"}})
	if err != nil {
		b.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close() //nolint:errcheck // only read
	for b.Loop() {
		r, w, err := os.Pipe()
		if err != nil {
			b.Fatal(err)
		}
		a := *args
		a.FilePayload = control.FilePayload{FilePayload: urpc.FilePayload{Files: []*os.File{null, w, w}}, GuestFDs: []int{0, 1, 2}}
		pid, err := bareExecute(&sb, &a)
		if err != nil {
			b.Fatal(err)
		}
		_ = w.Close()
		if _, err := sb.WaitPID(containerID, pid); err != nil {
			b.Fatal(err)
		}
		_ = r.Close()
	}
}

// bareExecute is sandbox.Sandbox.Execute without its change of the files' owner.
func bareExecute(sb *sandbox.Sandbox, a *control.ExecArgs) (pid int32, err error) {
	c, err := client.ConnectTo(sb.ControlSocketPath)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // done with
	err = c.Call(boot.ContMgrExecuteAsync, a, &pid)
	return pid, err
}

// BenchmarkBareRun is the floor of create: what runsc's own command line takes
// from start to the first command's end, and to start alone.
func BenchmarkBareRun(b *testing.B) {
	be := open(b)
	for _, withExec := range []bool{false, true} {
		name := map[bool]string{false: "Run", true: "RunFirstExec"}[withExec]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				id := flash.NewSandboxID()
				dir := be.dir(id)
				if err := os.Mkdir(dir, 0o700); err != nil {
					b.Fatal(err)
				}
				rec, err := be.newRecord(b.Context(), spec(b))
				if err != nil {
					b.Fatal(err)
				}
				rec.Args, rec.MemoryBytes, rec.CPUs, rec.Pids = []string{"sleep", "1000"}, 256<<20, 1, 512
				rec.Cgroup = be.cgroupOf(id)
				m := newMachine(be, id, rec)
				s := ociSpec(&rec, dir)
				s.Annotations = nil
				if err := writeJSON(dir, "config.json", s); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				runsc := func(args ...string) {
					c := exec.Command("/proc/self/exe", append([]string{"--root=" + dir + "/" + runscDir, "--network=none"}, args...)...)
					c.Args[0] = "runsc"
					if err := c.Run(); err != nil {
						b.Fatal(err)
					}
				}
				runsc("run", "-detach", "--bundle", dir, containerID)
				if withExec {
					runsc("exec", containerID, "true")
				}
				b.StopTimer()
				runsc("delete", "-force", containerID)
				if err := m.remove(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
