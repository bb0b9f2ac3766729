package manager

import (
	"context"
	"errors"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// writeTimeout bounds a record's write. Writes go on when the request is
// gone: an effect that has happened must be known.
const writeTimeout = 10 * time.Second

// update changes e's record by change and stores it, then shows it to
// readers. A state that change sets must be reachable by the table of states.
// On error nothing has changed.
func (m *Manager) update(ctx context.Context, e *entry, change func(*store.Sandbox)) error {
	ctx, cancel := detached(ctx, writeTimeout)
	defer cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	return m.updateLocked(ctx, e, change)
}

func (m *Manager) updateLocked(ctx context.Context, e *entry, change func(*store.Sandbox)) error {
	next := *e.rec
	next.Sandbox = *e.rec.Clone()
	change(&next)
	if from := e.rec.State; from != next.State {
		if err := from.To(next.State); err != nil {
			return err
		}
	}
	if err := m.o.Store.UpdateSandbox(ctx, &next); err != nil {
		return err
	}
	m.show(e, &next)
	return nil
}

// recordLocked is updateLocked for what has happened already, or must happen
// even on a full disk: the truth is shown even if it can't be stored, and the
// next start finds it out again.
func (m *Manager) recordLocked(ctx context.Context, e *entry, change func(*store.Sandbox)) {
	err := m.updateLocked(ctx, e, change)
	if err == nil {
		return
	}
	m.log.Error("a change of state could not be stored", "sandbox", e.id, "err", err)
	next := *e.rec
	change(&next)
	m.show(e, &next)
}

// show makes rec the entry's record. The caller holds e.mu.
func (m *Manager) show(e *entry, rec *store.Sandbox) {
	from := e.rec.State
	e.rec = rec
	e.view.Store(rec.Clone())
	if from != rec.State {
		m.log.Info("sandbox changed state", "sandbox", e.id, "backend", rec.Backend, "from", string(from), "to", string(rec.State), "cause", causeOf(rec.Ending))
	}
}

func causeOf(end *flash.Ending) string {
	if end == nil {
		return ""
	}
	return string(end.Cause)
}

// watch waits for the end of e's machine and records how it ended.
func (m *Manager) watch(e *entry) {
	mc := e.machine
	m.wg.Go(func() {
		end, err := mc.Wait(m.ctx)
		if err != nil {
			return // the daemon is closing
		}
		m.ended(e, end)
	})
}

// ended records that e's machine has ended, and frees what it held. The
// record stays, with its cause, until the sandbox is deleted.
func (m *Manager) ended(e *entry, end flash.Ending) {
	e.setGone(&endedError{end})
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	e.mu.Lock()
	if e.rec.State == flash.Stopping {
		e.mu.Unlock()
		return // a delete is under way and does the rest
	}
	m.recordLocked(ctx, e, func(r *store.Sandbox) { r.State, r.Ending = flash.Stopped, &end })
	e.mu.Unlock()
	m.metrics.ended(e.view.Load().Backend, end.Cause)

	// Free the machine's remains now rather than at the delete that may never
	// come. The turn keeps this apart from a delete that comes just now.
	if e.take(m.ctx) != nil {
		return
	}
	defer e.release()
	if e.view.Load().State != flash.Stopped {
		return
	}
	if err := m.destroyMachine(m.ctx, e); err != nil {
		m.log.Warn("remains of an ended sandbox could not be removed yet", "sandbox", e.id, "err", err)
	}
}

// endedError is the cause of entry.gone when the machine ended by itself.
type endedError struct{ ending flash.Ending }

func (e *endedError) Error() string { return "the sandbox has ended: " + e.ending.Message }

// errDeleted is the cause of entry.gone when the sandbox is deleted.
var errDeleted = errors.New("the sandbox is being deleted")
