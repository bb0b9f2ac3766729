package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// stub is a flash.Service with sandboxes that only exist in a map. It records
// the requests and runs what the test puts in.
type stub struct {
	mu        sync.Mutex
	sandboxes map[flash.ID]*flash.Sandbox
	snapshots []*flash.Snapshot
	calls     []string
	created   flash.CreateOptions
	executed  flash.ExecOptions

	onCreate func(context.Context, flash.CreateOptions) error
	onExec   func(context.Context, flash.ExecOptions) (*flash.ExecResult, error)
	onDelete func(flash.ID) error
}

var _ flash.Service = (*stub)(nil)

var when = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newStub() *stub {
	s := &stub{sandboxes: make(map[flash.ID]*flash.Sandbox)}
	s.sandboxes["sb-one"] = &flash.Sandbox{
		ID: "sb-one", State: flash.Running, Backend: "gvisor", Image: "alpine:latest", Digest: "sha256:0123456789abcdef",
		Command: []string{"sleep", "600"}, MemoryMB: 512, CPUCores: 0.5, CreatedAt: when,
	}
	s.sandboxes["sb-two"] = &flash.Sandbox{
		ID: "sb-two", State: flash.Stopped, Backend: "docker", Image: "odd\x1b[31m", CreatedAt: when.Add(time.Second),
		Ending: &flash.Ending{Cause: flash.CauseOOM, ExitCode: 137, Message: "killed for passing its memory limit"},
	}
	s.snapshots = []*flash.Snapshot{{
		ID: "sn-one", SandboxID: "sb-one", Backend: "gvisor", SnapshotPath: "/d/sn-one/state", MemFilePath: "/d/sn-one/pages",
		Memory: true, SizeBytes: 3 << 20, Detail: "files and memory", CreatedAt: when,
	}}
	return s
}

func (s *stub) call(format string, args ...any) func() {
	s.mu.Lock()
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
	return s.mu.Unlock
}

func (s *stub) find(id flash.ID) (*flash.Sandbox, error) {
	if sb, ok := s.sandboxes[id]; ok {
		return sb, nil
	}
	return nil, flash.SandboxNotFound(id, "")
}

func (s *stub) Create(ctx context.Context, o flash.CreateOptions) (*flash.Sandbox, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	defer s.call("create %s", o.Image)()
	s.created = o
	if s.onCreate != nil {
		if err := s.onCreate(ctx, o); err != nil {
			return nil, err
		}
	}
	if o.ID == "" {
		o.ID = "sb-new"
	}
	sb := &flash.Sandbox{ID: o.ID, State: flash.Running, Backend: "gvisor", Image: o.Image, Command: o.Command, MemoryMB: 512, CreatedAt: when}
	s.sandboxes[o.ID] = sb
	return sb, nil
}

func (s *stub) Get(_ context.Context, id flash.ID) (*flash.Sandbox, error) {
	defer s.call("get %s", id)()
	return s.find(id)
}

func (s *stub) Delete(ctx context.Context, id flash.ID, o flash.DeleteOptions) error {
	defer s.call("delete %s keep=%v", id, o.Keep)()
	if ctx.Err() != nil {
		return flash.AsError(ctx.Err())
	}
	if s.onDelete != nil {
		if err := s.onDelete(id); err != nil {
			return err
		}
	}
	if _, err := s.find(id); err != nil {
		return err
	}
	if !o.Keep {
		delete(s.sandboxes, id)
	}
	return nil
}

func (s *stub) Exec(ctx context.Context, id flash.ID, o flash.ExecOptions) (*flash.ExecResult, error) {
	defer s.call("exec %s", o.Command)()
	if _, err := s.find(id); err != nil {
		return nil, err
	}
	s.executed = o
	if s.onExec != nil {
		return s.onExec(ctx, o)
	}
	return &flash.ExecResult{Stdout: []byte("out\n"), Stderr: []byte("err\n"), Ending: flash.Ending{Cause: flash.CauseExited}}, nil
}

func (s *stub) RunPython(context.Context, flash.ID, flash.PythonOptions) (*flash.ExecResult, error) {
	return nil, errors.New("not asked for by fsb")
}

func (s *stub) PlatformInfo(_ context.Context, id flash.ID) (*flash.PlatformInfo, error) {
	defer s.call("platform %s", id)()
	return &flash.PlatformInfo{SandboxID: string(id), Isolation: "userspace-kernel", System: "Linux", Release: "4.19", Machine: "x86_64", Hostname: "h"}, nil
}

func (s *stub) Metrics(_ context.Context, id flash.ID) (*flash.Metrics, error) {
	defer s.call("metrics %s", id)()
	if _, err := s.find(id); err != nil {
		return nil, err
	}
	return &flash.Metrics{MemoryUsageBytes: 1 << 20, MemoryLimitBytes: 512 << 20, MemoryPercent: 0.195, CPUPercent: 12.5, PidsCurrent: 3}, nil
}

func (s *stub) Snapshot(_ context.Context, id flash.ID) (*flash.Snapshot, error) {
	defer s.call("snapshot %s", id)()
	if _, err := s.find(id); err != nil {
		return nil, err
	}
	return s.snapshots[0], nil
}

func (s *stub) Resume(_ context.Context, id flash.ID) error {
	defer s.call("resume %s", id)()
	sb, err := s.find(id)
	if err == nil && sb.State == flash.Stopped {
		return flash.Errorf(flash.Conflict, "sandbox %s is stopped", id).WithRemediation("Create it anew.")
	}
	return err
}

func (s *stub) List(context.Context) ([]*flash.Sandbox, error) {
	defer s.call("list")()
	var out []*flash.Sandbox
	for _, id := range []flash.ID{"sb-one", "sb-two"} {
		if sb, ok := s.sandboxes[id]; ok {
			out = append(out, sb)
		}
	}
	return out, nil
}

func (s *stub) Snapshots(context.Context) ([]*flash.Snapshot, error) { return s.snapshots, nil }

func (s *stub) DeleteSnapshot(_ context.Context, id flash.ID) error {
	defer s.call("delete snapshot %s", id)()
	if id != "sn-one" {
		return flash.Errorf(flash.NotFound, "snapshot %s does not exist", id)
	}
	return nil
}

func (s *stub) Images(context.Context) ([]flash.Image, error) {
	return []flash.Image{
		{Reference: "alpine:latest", Digest: "sha256:0123456789abcdef", State: "ready", SizeBytes: 8 << 20, Leases: 2, LastUsed: when},
		{Reference: "python:3.13", State: "pulling", DoneBytes: 25, WantBytes: 100},
		{Reference: "nope:1", State: "failed", Error: "not found"},
	}, nil
}

func (s *stub) Backends(context.Context) ([]flash.BackendStatus, error) {
	return []flash.BackendStatus{
		{Name: "gvisor", Available: true, Isolation: "userspace-kernel", Version: "20260905", Capabilities: []string{"exec", "snapshot"}, Notes: []string{"loopback network only"}},
		{Name: "docker", Reason: "no engine listens on /var/run/docker.sock", Isolation: "container", Capabilities: []string{"exec"}},
	}, nil
}

// outcome is what a run of fsb left.
type outcome struct {
	code           int
	stdout, stderr string
}

// fsb runs the program on the stub, in the zone UTC.
func fsb(t *testing.T, s *stub, args ...string) outcome {
	t.Helper()
	return fsbContext(t.Context(), s, args...)
}

func fsbContext(ctx context.Context, s *stub, args ...string) outcome {
	var out, errOut bytes.Buffer
	vars := map[string]string{"FROM_OUTSIDE": "outside"}
	code := run(ctx, args, env{
		Get: func(name string) string { return vars[name] }, Stdout: &out, Stderr: &errOut,
		Connect: func(string, string) (flash.Service, error) { return s, nil },
	})
	return outcome{code, out.String(), errOut.String()}
}
