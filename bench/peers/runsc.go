package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
)

// runsc is gVisor by its command line, without cgroups and network: the least
// that a sandbox of gVisor's can cost from outside.
type runsc struct {
	lab     *lab.Lab
	program string // executed under the name "runsc"
	dir     string
	next    atomic.Int64
}

func (p *runsc) Open(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root")
	}
	if p.program, err = p.lab.Program(); err != nil {
		return err
	}
	p.dir = filepath.Join(p.lab.Dir(), "runsc")
	if err := os.MkdirAll(filepath.Join(p.dir, "root"), 0o700); err != nil {
		return err
	}
	for _, kind := range lab.Kinds {
		if err := p.bundle(ctx, kind); err != nil {
			return err
		}
	}
	return nil
}

// bundle writes the OCI bundle of an image.
func (p *runsc) bundle(ctx context.Context, kind lab.Kind) error {
	rootfs, err := p.lab.Rootfs(ctx, kind)
	if err != nil {
		return err
	}
	dir := filepath.Join(p.dir, string(kind))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	spec := specs.Spec{
		Version:  "1.0.0",
		Process:  &specs.Process{Args: idle, Cwd: "/", Env: []string{lab.Path}},
		Root:     &specs.Root{Path: rootfs},
		Hostname: "bench",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
}

// command returns runsc with the flags that all its commands share.
func (p *runsc) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.program)
	cmd.Args = append([]string{
		"runsc", "--root=" + filepath.Join(p.dir, "root"), "--platform=systrap", "--network=none",
		"--ignore-cgroups", "--overlay2=root:memory",
	}, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func (p *runsc) Create(ctx context.Context, kind lab.Kind) (Box, error) {
	b := &runscBox{p, fmt.Sprintf("bench-%d", p.next.Add(1))}
	// The sandbox inherits the streams, so they can't be pipes that are read
	// to their end.
	log, err := os.Create(filepath.Join(p.dir, b.id+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(log.Name()); _ = log.Close() }()
	cmd := p.command(ctx, "run", "-detach", "-bundle="+filepath.Join(p.dir, string(kind)), b.id)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("runsc run: %w: %.300s", err, text)
	}
	return b, nil
}

func (p *runsc) Close(ctx context.Context) error {
	if p.dir == "" {
		return nil
	}
	out, err := must(capture(p.command(ctx, "list", "-quiet")))
	if err != nil {
		return err
	}
	for _, id := range strings.Fields(out.Stdout) {
		if _, err := must(capture(p.command(ctx, "delete", "-force", id))); err != nil {
			return err
		}
	}
	// A network namespace that sandboxes without network share, and that runsc
	// never gives up.
	null := filepath.Join(p.dir, "root", "null-netns")
	if err := syscall.Unmount(null, 0); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("unmount %s: %w", null, err)
	}
	return nil
}

type runscBox struct {
	p  *runsc
	id string
}

func (b *runscBox) Exec(ctx context.Context, argv ...string) (Output, error) {
	return capture(b.p.command(ctx, append([]string{"exec", b.id}, argv...)...))
}

func (b *runscBox) Python(ctx context.Context, code string) (Output, error) {
	return b.Exec(ctx, append(python[:len(python):len(python)], code)...)
}

func (b *runscBox) Delete(ctx context.Context) error {
	_, err := must(capture(b.p.command(ctx, "delete", "-force", b.id)))
	return err
}
