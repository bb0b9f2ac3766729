package peers

import (
	"context"
	"errors"
	"fmt"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/bench/lab"
)

// ours is a daemon of ours through HTTP with keep-alive, by our client for Go.
type ours struct {
	lab     *lab.Lab
	backend string
	daemon  *lab.Daemon
}

func (p *ours) Open(ctx context.Context) (err error) {
	if p.daemon, err = p.lab.Daemon(ctx); err != nil {
		return err
	}
	if p.backend == "docker" && p.daemon.PID != 0 {
		if _, err := p.lab.Docker(ctx); err != nil { // the reason, better than the daemon knows it
			return err
		}
	}
	list, err := p.daemon.Client.Backends(ctx)
	if err != nil {
		return err
	}
	for _, b := range list {
		if b.Name == p.backend {
			if !b.Available {
				return errors.New(b.Reason)
			}
			return nil
		}
	}
	return fmt.Errorf("this fsbd has no backend %s", p.backend)
}

// Close leaves sandboxes to the end of the daemon.
func (p *ours) Close(context.Context) error { return nil }

func (p *ours) Create(ctx context.Context, kind lab.Kind) (Box, error) {
	sb, err := p.daemon.Client.Create(ctx, flash.CreateOptions{
		Type: p.backend, Image: p.daemon.Image(kind), Command: idle, MemoryMB: memoryMB,
	})
	if err != nil {
		return nil, err
	}
	return OurBox{ID: sb.ID, client: p.daemon.Client}, nil
}

// OurBox is a sandbox of a daemon of ours.
type OurBox struct {
	ID     flash.ID
	client flash.Service
}

// Exec implements Box.
func (b OurBox) Exec(ctx context.Context, argv ...string) (Output, error) {
	return result(b.client.Exec(ctx, b.ID, flash.ExecOptions{Command: argv}))
}

// Python implements Box.
func (b OurBox) Python(ctx context.Context, code string) (Output, error) {
	return result(b.client.RunPython(ctx, b.ID, flash.PythonOptions{Code: code}))
}

// Delete implements Box.
func (b OurBox) Delete(ctx context.Context) error {
	return b.client.Delete(ctx, b.ID, flash.DeleteOptions{})
}

func result(r *flash.ExecResult, err error) (Output, error) {
	if err != nil {
		return Output{}, err
	}
	return Output{Stdout: string(r.Stdout), Stderr: string(r.Stderr), Code: r.Ending.ExitCode}, nil
}
