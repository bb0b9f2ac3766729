package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/gvisor"
)

// inProcess uses our gVisor backend from within this process: what is left of
// a command when daemon, HTTP and records are taken away.
type inProcess struct {
	lab     *lab.Lab
	backend backend.Backend
}

func (p *inProcess) Open(ctx context.Context) error {
	if Dynamic {
		return errors.New("this program was built with cgo, and gVisor can't run it again as a sandbox; build it with CGO_ENABLED=0")
	}
	for _, kind := range lab.Kinds {
		if _, err := p.lab.Rootfs(ctx, kind); err != nil {
			return err
		}
	}
	b, err := gvisor.New(gvisor.Config{StateDir: filepath.Join(p.lab.Dir(), "inproc"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	p.backend = b
	return b.Probe(ctx)
}

func (p *inProcess) Create(ctx context.Context, kind lab.Kind) (Box, error) {
	rootfs, err := p.lab.Rootfs(ctx, kind)
	if err != nil {
		return nil, err
	}
	m, err := p.backend.Create(ctx, backend.Spec{
		ID: flash.NewSandboxID(), Image: localImage{kind, rootfs}, Args: idle, Env: []string{lab.Path}, Dir: "/",
		Hostname: "bench", MemoryBytes: memoryMB << 20, Pids: 1024,
	})
	if err != nil {
		return nil, err
	}
	return machineBox{m}, nil
}

func (p *inProcess) Close(ctx context.Context) error {
	if p.backend == nil {
		return nil
	}
	var errs []error
	for h, err := range p.backend.List(ctx) {
		var m backend.Machine
		if err == nil {
			m, err = p.backend.Attach(ctx, h)
		}
		if err == nil {
			err = m.Destroy(ctx)
		}
		if err != nil && !errors.Is(err, flash.NotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, p.backend.Close())...)
}

// localImage is an unpacked image.
type localImage struct {
	kind   lab.Kind
	rootfs string
}

func (i localImage) Reference() string                      { return string(i.kind) }
func (i localImage) Digest() string                         { return "" }
func (i localImage) Config() backend.ImageConfig            { return backend.ImageConfig{} }
func (i localImage) Rootfs(context.Context) (string, error) { return i.rootfs, nil }

type machineBox struct{ m backend.Machine }

func (b machineBox) Exec(ctx context.Context, argv ...string) (Output, error) {
	x, ok := backend.As[backend.Execer](b.m)
	if !ok {
		return Output{}, errors.New("the backend has no exec")
	}
	var stdout, stderr bytes.Buffer
	proc, err := x.Exec(ctx, backend.ExecSpec{Args: argv, Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return Output{}, err
	}
	end, err := proc.Wait(ctx)
	if err != nil {
		return Output{}, fmt.Errorf("wait: %w", err)
	}
	return Output{Stdout: stdout.String(), Stderr: stderr.String(), Code: end.ExitCode}, nil
}

func (b machineBox) Python(ctx context.Context, code string) (Output, error) {
	return b.Exec(ctx, append(python[:len(python):len(python)], code)...)
}

func (b machineBox) Delete(ctx context.Context) error { return b.m.Destroy(ctx) }
