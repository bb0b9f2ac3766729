package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// op is a kind of engine call. Each has a deadline and a breaker of its own,
// because an engine may answer some kinds while others hang for ever.
type op struct {
	name    string
	timeout time.Duration
}

var (
	opInfo    = op{"info", 10 * time.Second}
	opInspect = op{"inspect", 15 * time.Second}
	opImage   = op{"image", 15 * time.Second}
	opLoad    = op{"load", 15 * time.Minute}
	opCreate  = op{"create", 60 * time.Second}
	opStart   = op{"start", 60 * time.Second}
	opExec    = op{"exec", 30 * time.Second}
	opPause   = op{"pause", 20 * time.Second}
	opCommit  = op{"commit", 5 * time.Minute}
	opRemove  = op{"remove", 60 * time.Second}
	opStats   = op{"stats", 10 * time.Second}
)

// breaker keeps calls of one kind away from an engine that let one hang.
type breaker struct {
	until time.Time
	trial bool // one call is trying again
}

// enter passes a call through the breaker of its kind.
func (e *engine) enter(o op) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.tripped[o.name]
	if b == nil {
		return nil
	}
	if b.trial || time.Now().Before(b.until) {
		return flash.Errorf(flash.Unavailable, "the Docker engine let the last %s call hang and is not asked again yet", o.name).
			WithRemediation("retry in some seconds; restart the engine if it stays so")
	}
	b.trial = true
	return nil
}

// leave tells the breaker how the call went.
func (e *engine) leave(o op, hung bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if hung {
		e.tripped[o.name] = &breaker{until: time.Now().Add(e.limits.retry)}
	} else {
		delete(e.tripped, o.name)
	}
}

// release gives a trial back that neither succeeded nor failed.
func (e *engine) release(o op) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.tripped[o.name]; b != nil {
		b.trial = false
	}
}

// errHung is the cause of a context whose engine stopped answering pings.
var errHung = errors.New("the engine does not answer")

// call runs one engine call under a deadline and the breakers. Errors of the
// engine itself come back as they are; that it can't be reached or hangs is
// flash.Unavailable; the caller's end is ctx.Err().
func call[T any](ctx context.Context, e *engine, o op, fn func(context.Context, *client.Client) (T, error)) (T, error) {
	var zero T
	c, err := e.client(ctx)
	if err != nil {
		return zero, err
	}
	if err := e.enter(o); err != nil {
		return zero, err
	}
	timeout := o.timeout
	if e.limits.most > 0 {
		timeout = min(timeout, e.limits.most)
	}
	in, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deadline, stop := context.WithTimeout(in, timeout)
	defer stop()
	defer e.guard(deadline, c, cancel)()

	v, err := fn(deadline, c)
	switch {
	case err == nil:
		e.leave(o, false)
		return v, nil
	case ctx.Err() != nil:
		e.release(o)
		return zero, ctx.Err()
	case errors.Is(context.Cause(deadline), errHung):
		e.release(o)
		if _, err := e.client(ctx); err != nil {
			return zero, err
		}
		return zero, flash.Errorf(flash.Unavailable, "the Docker engine stopped answering for a while")
	case deadline.Err() != nil:
		e.log.Warn("a call of the Docker engine hangs", "op", o.name, "dur", timeout)
		e.leave(o, true)
		return zero, flash.Errorf(flash.Unavailable, "the Docker engine has not finished a %s call within %s", o.name, timeout).
			WithRemediation("restart the engine if it stays so")
	case isConnection(err):
		e.release(o)
		if perr := e.alive(c); perr != nil { // else only this connection broke
			e.fail(perr)
		}
		return zero, unreachable(e.host(), err)
	}
	e.leave(o, false)
	return zero, err
}

// guard pings the engine whenever the call takes long, and cancels the call
// when there is no answer. The returned function ends it.
func (e *engine) guard(ctx context.Context, c *client.Client, cancel context.CancelCauseFunc) func() {
	var mu sync.Mutex
	var ended bool
	var t *time.Timer
	check := func() {
		err := e.alive(c)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			e.fail(err)
			cancel(errHung)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			t.Reset(e.limits.suspect)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(e.limits.suspect, check)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
		t.Stop()
	}
}

// isConnection reports whether err is of the connection, not of the engine.
func isConnection(err error) bool {
	var op *net.OpError
	return client.IsErrConnectionFailed(err) || errors.As(err, &op) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}
