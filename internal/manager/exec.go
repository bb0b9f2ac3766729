package manager

import (
	"context"
	"errors"
	"io"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

const (
	// killTimeout bounds the killing of a command whose caller has left.
	killTimeout = 5 * time.Second
	// goneGrace is how long a backend may take to notice that the machine
	// under a command has ended, and to hand over its last output.
	goneGrace = 2 * time.Second
)

// Exec implements flash.Service.
func (m *Manager) Exec(ctx context.Context, id flash.ID, o flash.ExecOptions) (*flash.ExecResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	e, err := m.table.find(id)
	if err != nil {
		return nil, err
	}
	res, _, err := m.run(ctx, e, backend.ExecSpec{Args: o.Command}, o.Timeout)
	return res, err
}

// run executes a command to its end. started is false when the program could
// not be started, which the result then tells as a shell would.
func (m *Manager) run(ctx context.Context, e *entry, s backend.ExecSpec, timeout time.Duration) (res *flash.ExecResult, started bool, err error) {
	began := time.Now()
	mc, sb, err := e.live()
	if err != nil {
		return nil, false, err
	}
	if sb.State == flash.Paused {
		return nil, false, pausedError(e.id)
	}
	x, err := capability[backend.Execer](e, mc, backend.CapExec)
	if err != nil {
		return nil, false, err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errDeadline)
		defer cancel()
	}
	stdout, stderr := newClip(m.o.OutputLimit), newClip(m.o.OutputLimit)
	s.Stdout, s.Stderr = stdout, stderr

	var ending flash.Ending
	p, err := x.Exec(ctx, s)
	var startErr *backend.StartError
	switch {
	case errors.As(err, &startErr):
		_, _ = io.WriteString(stderr, startErr.Message+"\n")
		ending = flash.Ending{Cause: flash.CauseExited, ExitCode: startErr.ExitCode, Message: startErr.Message}
	case err != nil && errors.Is(context.Cause(ctx), errDeadline):
		ending = deadlineEnding
	case err != nil:
		return nil, false, m.execError(ctx, e, err)
	default:
		started = true
		if ending, err = m.await(ctx, e, p); err != nil {
			return nil, true, err
		}
	}
	res = &flash.ExecResult{Ending: ending}
	res.Stdout, res.StdoutDropped = stdout.result()
	res.Stderr, res.StderrDropped = stderr.result()
	res.Duration = time.Since(began)
	m.metrics.ran(sb.Backend, res.Duration)
	return res, started, nil
}

var errDeadline = errors.New("the command's deadline has passed")

// deadlineEnding is how a command ends that its own deadline stopped.
var deadlineEnding = flash.Ending{Cause: flash.CauseTimeout, ExitCode: 124, Message: "killed: its deadline has passed"}

func pausedError(id flash.ID) *flash.Error {
	return flash.Errorf(flash.Conflict, "sandbox %s is paused", id).
		WithRemediation("resume it first: POST /sandboxes/%s/resume", id)
}

// execError explains why a command could not be started.
func (m *Manager) execError(ctx context.Context, e *entry, err error) error {
	switch {
	case context.Cause(e.gone) != nil:
		return goneError(e, "before the command started", false)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// goneError tells that the sandbox went away under a command, which may have
// done something (ran) or not.
func goneError(e *entry, when string, ran bool) error {
	var ended *endedError
	err := flash.SandboxNotFound(e.id, "it was deleted "+when)
	if cause := context.Cause(e.gone); errors.As(cause, &ended) {
		err = flash.Errorf(flash.Conflict, "sandbox %s ended %s: %s (%s)", e.id, when, ended.ending.Message, ended.ending.Cause).
			WithRemediation("delete it and create a new one")
	}
	err.Uncertain = ran
	return err
}

// await waits for a process. When the caller leaves or a deadline passes, the
// process is killed first; when the machine ends under it, that is the ending.
func (m *Manager) await(ctx context.Context, e *entry, p backend.Process) (flash.Ending, error) {
	wait, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(e.gone, func() {
		// The backend most often notices by itself and knows more.
		t := time.AfterFunc(goneGrace, stop)
		context.AfterFunc(wait, func() { t.Stop() })
	})()
	ending, err := p.Wait(wait)
	if err == nil {
		var ended *endedError
		if ending.Cause == flash.CauseSandboxGone && errors.As(context.Cause(e.gone), &ended) && ended.ending.Cause == flash.CauseOOM {
			ending.Cause, ending.Message = flash.CauseOOM, ended.ending.Message
			if ending.ExitCode <= 0 {
				ending.ExitCode = 137
			}
		} else if ending.Cause == flash.CauseSandboxGone || ending.Cause == flash.CauseUnknown && e.gone.Err() != nil {
			return m.gone(ctx, e)
		}
		return ending, nil
	}
	if ctx.Err() == nil {
		return m.gone(ctx, e)
	}

	kill, cancel := detached(ctx, killTimeout)
	defer cancel()
	if err := p.Kill(kill); err != nil {
		m.log.Warn("a command could not be killed", "sandbox", e.id, "err", err)
	}
	if e.view.Load().State == flash.Paused {
		// A process that is frozen dies when it is woken, not before.
		kill, cancel = context.WithTimeout(kill, 10*time.Millisecond)
		defer cancel()
	}
	if _, err := p.Wait(kill); err != nil {
		m.log.Warn("a killed command does not end", "sandbox", e.id, "err", err)
	}
	if errors.Is(context.Cause(ctx), errDeadline) {
		return deadlineEnding, nil
	}
	return flash.Ending{}, ctx.Err()
}

// gone is the ending of a command whose sandbox went away: a result when the
// sandbox died of the command's own doing (memory), else an error.
func (m *Manager) gone(ctx context.Context, e *entry) (flash.Ending, error) {
	select { // the watcher may be a moment behind
	case <-e.gone.Done():
	case <-time.After(goneGrace):
	case <-ctx.Done():
	}
	var ended *endedError
	if errors.As(context.Cause(e.gone), &ended) && ended.ending.Cause == flash.CauseOOM {
		return flash.Ending{Cause: flash.CauseOOM, ExitCode: 137, Message: ended.ending.Message}, nil
	}
	return flash.Ending{}, goneError(e, "while the command ran", true)
}
