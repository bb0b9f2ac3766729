package docker

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// impatient returns a backend that gives the engine little time.
func impatient(host string) *Backend {
	b := New(Config{Host: host, Owner: "impatient"})
	b.engine.limits = limits{ping: 300 * time.Millisecond, suspect: 200 * time.Millisecond, retry: 400 * time.Millisecond}
	return b
}

// wantUnavailable checks the code and that the sentence says word.
func wantUnavailable(t *testing.T, what string, err error, word string) {
	t.Helper()
	if !errors.Is(err, flash.Unavailable) {
		t.Fatalf("%s: error is %v, want unavailable", what, err)
	}
	if msg := flash.AsError(err).Message; !strings.Contains(msg, word) {
		t.Errorf("%s: message is %q, want one that says %q", what, msg, word)
	}
}

func TestEngineNotThere(t *testing.T) {
	for name, c := range map[string]struct{ host, word string }{
		"no socket":   {"unix://" + filepath.Join(t.TempDir(), "no.sock"), "can't be reached"},
		"no listener": {"tcp://127.0.0.1:1", "can't be reached"},
		"nonsense":    {"nonsense", "can't be used"},
	} {
		t.Run(name, func(t *testing.T) {
			b := impatient(c.host)
			wantUnavailable(t, "Probe", b.Probe(t.Context()), c.word)
			if msg := flash.AsError(b.Probe(t.Context())).Message; !strings.Contains(msg, c.host) {
				t.Errorf("the message does not name the address: %q", msg)
			}
			_, err := b.Create(t.Context(), backend.Spec{ID: "x", Args: []string{"true"}, Image: &ownImage{id: "sha256:0"}})
			wantUnavailable(t, "Create", err, c.word)
			for _, err := range b.List(t.Context()) {
				wantUnavailable(t, "List", err, c.word)
			}
			if err := b.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// TestHungEngine talks to a socket that accepts and never answers.
func TestHungEngine(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	sock := filepath.Join(t.TempDir(), "hung.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	b := impatient("unix://" + sock)
	start := time.Now()
	wantUnavailable(t, "Probe", b.Probe(t.Context()), "does not answer")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the first call of a hung engine took %s", took)
	}
	// From now on calls fail fast, however many there are.
	before := runtime.NumGoroutine()
	start = time.Now()
	for range 100 {
		_, err := b.Create(t.Context(), backend.Spec{ID: "x", Args: []string{"true"}, Image: &ownImage{id: "sha256:0"}})
		wantUnavailable(t, "Create", err, "does not answer")
	}
	if took := time.Since(start); took > 200*time.Millisecond {
		t.Errorf("100 calls of an engine that is known to hang took %s", took)
	}
	if n := runtime.NumGoroutine(); n > before+10 {
		t.Errorf("%d goroutines, before the calls there were %d", n, before)
	}
	m := &Machine{b: b, id: "x", cid: "0123"}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := m.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait while the engine hangs: %v, want the context's error", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	_ = l.Close()
	if err := goleak.Find(leaks); err != nil {
		t.Error(err)
	}
}

// TestOneKindHangs checks that a kind of call that hangs is left alone for a
// while, and that others go on.
func TestOneKindHangs(t *testing.T) {
	e := newEngine("", New(Config{}).log)
	e.limits.retry = 50 * time.Millisecond
	if err := e.enter(opStart); err != nil {
		t.Fatalf("the first call is refused: %v", err)
	}
	e.leave(opStart, true)
	wantUnavailable(t, "the call after one that hung", e.enter(opStart), "start call hang")
	if err := e.enter(opInspect); err != nil {
		t.Errorf("a call of another kind is refused: %v", err)
	}
	time.Sleep(60 * time.Millisecond)
	if err := e.enter(opStart); err != nil {
		t.Errorf("no trial after the pause: %v", err)
	}
	wantUnavailable(t, "a second call during the trial", e.enter(opStart), "start call hang")
	e.leave(opStart, false)
	if err := e.enter(opStart); err != nil {
		t.Errorf("refused after a good trial: %v", err)
	}
}
