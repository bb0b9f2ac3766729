package manager

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// table holds every sandbox by id, and how deleted ones ended.
type table struct {
	entries sync.Map // flash.ID → *entry
	graves  sync.Map // flash.ID → string, one sentence
}

// entry is one sandbox in memory.
type entry struct {
	id flash.ID
	// view is what readers see. It is replaced, never changed.
	view atomic.Pointer[flash.Sandbox]
	// turn orders effects on the sandbox: whoever holds the token may act.
	turn chan struct{}

	mu      sync.Mutex
	rec     *store.Sandbox  // the stored record, with its revision
	backend *managedBackend // where it runs
	machine backend.Machine // nil until made or adopted
	lease   Lease           // nil for images an engine keeps itself

	// abort cancels the create under way, so that a delete need not wait for it.
	abort context.CancelFunc
	// gone ends when the machine has ended or is being destroyed. Execs watch it.
	gone    context.Context
	setGone context.CancelCauseFunc
	// python is the interpreter that run_python found, "" while unknown.
	python atomic.Pointer[string]
	cpu    cpuSample
}

func newEntry(rec *store.Sandbox, b *managedBackend) *entry {
	e := &entry{id: rec.ID, turn: make(chan struct{}, 1), rec: rec, backend: b}
	e.gone, e.setGone = context.WithCancelCause(context.Background())
	e.view.Store(rec.Clone())
	return e
}

// take waits for the entry's turn. The caller gives it back with release.
func (e *entry) take(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *entry) release() { <-e.turn }

// live returns the machine if the sandbox may be acted on, else why not.
func (e *entry) live() (backend.Machine, *flash.Sandbox, error) {
	sb := e.view.Load()
	e.mu.Lock()
	mc, b := e.machine, e.backend
	e.mu.Unlock()
	switch {
	case sb.State.Live() && sb.State != flash.Creating && mc != nil:
		return mc, sb, nil
	case sb.State == flash.Creating:
		return nil, sb, flash.Errorf(flash.Conflict, "sandbox %s is still being created", e.id).WithRemediation("wait until its status is running")
	case sb.State.Live():
		return nil, sb, flash.Errorf(flash.Unavailable, "sandbox %s can't be reached: the %s backend is not available: %s", e.id, sb.Backend, b.reason()).
			WithRemediation("try again once GET /backends shows it as available")
	case sb.State == flash.Stopping:
		return nil, sb, flash.SandboxNotFound(e.id, "it is being removed")
	}
	return nil, sb, flash.Errorf(flash.Conflict, "sandbox %s is %s%s", e.id, sb.State, describe(sb.Ending)).
		WithRemediation("delete it and create a new one")
}

func describe(end *flash.Ending) string {
	if end == nil || end.Message == "" {
		return ""
	}
	return ": " + end.Message
}

// find returns the entry of id; otherwise flash.NotFound with what is
// remembered of it.
func (t *table) find(id flash.ID) (*entry, error) {
	if v, ok := t.entries.Load(id); ok {
		return v.(*entry), nil
	}
	reason := ""
	if v, ok := t.graves.Load(id); ok {
		reason = v.(string)
	}
	return nil, flash.SandboxNotFound(id, reason)
}

// add puts e in; false if its id is taken.
func (t *table) add(e *entry) bool {
	_, taken := t.entries.LoadOrStore(e.id, e)
	return !taken
}

func (t *table) remove(e *entry) { t.entries.CompareAndDelete(e.id, e) }

func (t *table) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		t.entries.Range(func(_, v any) bool { return yield(v.(*entry)) })
	}
}
