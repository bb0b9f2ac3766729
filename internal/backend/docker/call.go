package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
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
	on      string // the container, where one that is wedged must not hold up others
}

// of returns the op on one container.
func (o op) of(container string) op {
	o.on = container
	return o
}

// key names the op's breaker. That of the kind as a whole has the bare name.
func (o op) key() string {
	if o.on == "" {
		return o.name
	}
	return o.name + " " + o.on
}

// wedged is how many containers a kind of call must hang for, within
// wedgedWithin, to be kept away from all.
const (
	wedged       = 2
	wedgedWithin = time.Minute
)

var (
	opInfo    = op{name: "info", timeout: 10 * time.Second}
	opList    = op{name: "list", timeout: 15 * time.Second}
	opInspect = op{name: "inspect", timeout: 15 * time.Second}
	opImage   = op{name: "image", timeout: 15 * time.Second}
	opLoad    = op{name: "load", timeout: 15 * time.Minute}
	opCreate  = op{name: "create", timeout: 60 * time.Second}
	opStart   = op{name: "start", timeout: 60 * time.Second}
	opExec    = op{name: "exec", timeout: 30 * time.Second}
	opPause   = op{name: "pause", timeout: 20 * time.Second}
	opCommit  = op{name: "commit", timeout: 5 * time.Minute}
	// Shorter than what callers give a whole Destroy, so that they see it fail.
	opRemove = op{name: "remove", timeout: 18 * time.Second}
	opStats  = op{name: "stats", timeout: 10 * time.Second}
)

// breaker keeps calls of one kind away from an engine, or from a container,
// that let one hang.
type breaker struct {
	until time.Time
	trial bool // one call is trying again
}

func (b *breaker) refuses() bool { return b != nil && (b.trial || time.Now().Before(b.until)) }

// enter passes a call through the breakers of its kind.
func (e *engine) enter(o op) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	all, one := e.tripped[o.name], e.tripped[o.key()]
	if all.refuses() || one.refuses() {
		return flash.Errorf(flash.Unavailable, "the Docker engine let the last %s call hang and is not asked again yet", o.name).
			WithRemediation("retry in some seconds; restart the engine if it stays so")
	}
	for _, b := range []*breaker{all, one} {
		if b != nil {
			b.trial = true
		}
	}
	return nil
}

// leave tells the breakers how the call went.
func (e *engine) leave(o op, hung bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !hung {
		delete(e.tripped, o.name)
		delete(e.tripped, o.key())
		return
	}
	now := time.Now()
	trip := func(key string) { e.tripped[key] = &breaker{until: now.Add(e.limits.retry)} }
	trip(o.key())
	n := 0
	for key, b := range e.tripped {
		if now.Sub(b.until) > wedgedWithin && !b.trial {
			delete(e.tripped, key) // most likely gone, or nobody asks any more
		} else if strings.HasPrefix(key, o.name+" ") {
			n++
		}
	}
	if n >= wedged || e.tripped[o.name] != nil {
		trip(o.name)
	}
}

// release gives a trial back that neither succeeded nor failed.
func (e *engine) release(o op) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, key := range []string{o.name, o.key()} {
		if b := e.tripped[key]; b != nil {
			b.trial = false
		}
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

	start := time.Now()
	v, err := fn(deadline, c)
	switch {
	case err == nil:
		e.leave(o, false)
		return v, nil
	case ctx.Err() != nil:
		// A caller who leaves says nothing of the engine, unless the deadline
		// it had was fair.
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(start) > timeout/3 {
			e.log.Warn("a call of the Docker engine hangs", "op", o.name, "dur", time.Since(start))
			e.leave(o, true)
		} else {
			e.release(o)
		}
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
