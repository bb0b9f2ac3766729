package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"

	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// markVar is set in the environment of commands whose process ids this host
// can't see, so that they and their descendants are found for a kill.
const markVar = "FLASH_SANDBOX_EXEC"

// Process is a command in a container.
type Process struct {
	m    *Machine
	s    backend.ExecSpec
	eid  string // the engine's exec id
	mark string // value of markVar, "" if it isn't set
	conn client.HijackedResponse
	ooms uint64 // OOM kills in the container before

	started chan struct{} // closed once the process is known to have started, or not
	ended   chan struct{} // closed once ending is set

	mu      sync.Mutex
	once    sync.Once
	pid     int // on the engine's host; 0: not known yet
	killed  bool
	refusal error // why it did not start
	ending  flash.Ending
}

var _ backend.Process = (*Process)(nil)

// Exec implements backend.Execer.
func (m *Machine) Exec(ctx context.Context, s backend.ExecSpec) (backend.Process, error) {
	if len(s.Args) == 0 || s.Args[0] == "" {
		return nil, flash.Errorf(flash.Invalid, "command: is empty")
	}
	if err := checkText(s.Args, s.Env, s.Dir, s.User); err != nil {
		return nil, err
	}
	p := &Process{m: m, s: s, started: make(chan struct{}), ended: make(chan struct{})}
	env := s.Env
	_, group := m.processes(ctx)
	if m.b.gVisor() || group == nil {
		p.mark = rand.Text()
		env = append(env[:len(env):len(env)], markVar+"="+p.mark)
	}
	if group != nil {
		p.ooms, _ = group.OOMKills()
	}
	if err := p.launch(ctx, env); err != nil {
		if p.eid != "" && (ctx.Err() != nil || outcomeUnknown(err)) {
			p.giveUp(ctx)
		}
		return nil, err
	}
	return p, nil
}

// launch creates the exec in the engine and attaches to it.
func (p *Process) launch(ctx context.Context, env []string) error {
	m, s := p.m, p.s
	made, err := call(ctx, m.b.engine, opExec.of(m.cid), func(ctx context.Context, c *client.Client) (client.ExecCreateResult, error) {
		return c.ExecCreate(ctx, m.cid, client.ExecCreateOptions{
			User: s.User, Env: env, WorkingDir: s.Dir, Cmd: s.Args,
			AttachStdin: s.Stdin != nil, AttachStdout: true, AttachStderr: true,
		})
	})
	if err != nil {
		return m.execError(ctx, err)
	}
	p.eid = made.ID
	// Not cut short: the engine might start the process all the same.
	asked := false
	att, err := call(context.WithoutCancel(ctx), m.b.engine, opExec.of(m.cid), func(ctx context.Context, c *client.Client) (client.ExecAttachResult, error) {
		asked = true
		return c.ExecAttach(ctx, p.eid, client.ExecAttachOptions{})
	})
	if err != nil && asked && isUnavailable(err) && !notDialed(err) {
		// Not flash.Unavailable, not even as the cause: callers would run it again.
		unknown := flash.Errorf(flash.Internal, "the Docker engine stopped answering while the command was being started; it may have run").
			WithRemediation("see whether it ran before running it again").WithCause(errors.New(err.Error()))
		unknown.Reason = reasonOutcomeUnknown
		return unknown
	}
	if err != nil {
		return m.execError(ctx, err)
	}
	p.conn = att.HijackedResponse
	if s.Stdin != nil {
		go p.feed()
	}
	go p.run()
	select {
	case <-p.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refusal
}

// reasonOutcomeUnknown is that of an error after which a command may have run.
const reasonOutcomeUnknown = "outcome_unknown"

func outcomeUnknown(err error) bool {
	var e *flash.Error
	return errors.As(err, &e) && e.Reason == reasonOutcomeUnknown
}

// giveUp ends a process whose caller leaves, or that can't be followed, before
// it was known to have started.
func (p *Process) giveUp(ctx context.Context) {
	clean, cancel := detached(ctx, opExec.timeout)
	defer cancel()
	if err := p.Kill(clean); err != nil {
		p.m.b.log.Warn("a command that was given up could not be killed", "sandbox", p.m.id, "err", err)
	}
}

// execError explains why the engine refused a command.
func (m *Machine) execError(ctx context.Context, err error) error {
	if ctx.Err() != nil || isUnavailable(err) {
		return err
	}
	c, ierr := m.inspect(ctx)
	if ierr != nil {
		return ierr
	}
	switch status(c.State) {
	case backend.StatusPaused:
		return pausedError(m.id)
	case backend.StatusEnded:
		return endedError(m.id)
	}
	return wrap("start command", err)
}

// feed copies stdin in, and closes it inside at its end.
func (p *Process) feed() {
	_, err := io.Copy(p.conn.Conn, p.s.Stdin)
	if err == nil || !errors.Is(err, io.ErrClosedPipe) {
		_ = p.conn.CloseWrite() // a process that has ended reads no more
	}
}

// Wait implements backend.Process.
func (p *Process) Wait(ctx context.Context) (flash.Ending, error) {
	select {
	case <-p.ended:
		return p.ending, nil
	default:
	}
	select {
	case <-p.ended:
		return p.ending, nil
	case <-ctx.Done():
		return flash.Ending{}, ctx.Err()
	}
}

func (p *Process) markStarted() { p.once.Do(func() { close(p.started) }) }
