package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// Delete implements flash.Service.
func (m *Manager) Delete(ctx context.Context, id flash.ID, o flash.DeleteOptions) error {
	e, err := m.table.find(id)
	if err != nil {
		return err
	}
	if o.Keep {
		return m.keep(ctx, e)
	}
	aborted := e.view.Load().State == flash.Creating && e.abort != nil
	if aborted {
		e.abort() // the create ends by itself and leaves nothing
	}
	if err := e.take(ctx); err != nil {
		return err
	}
	if _, err := m.table.find(id); err != nil {
		e.release()
		if aborted {
			return nil // the create gave up for this
		}
		return err // another delete was first
	}

	// From here the delete goes on when its caller leaves: the intent is
	// stored and the machine may be half gone.
	done := make(chan error, 1)
	m.wg.Go(func() {
		defer e.release()
		done <- m.remove(context.WithoutCancel(ctx), e)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remove deletes e, whose turn the caller has.
func (m *Manager) remove(ctx context.Context, e *entry) error {
	before := e.view.Load()
	if before.State != flash.Stopping {
		// A full disk must not keep sandboxes alive; the record is removed
		// below or on the next start.
		write, cancel := detached(ctx, writeTimeout)
		e.mu.Lock()
		m.recordLocked(write, e, func(r *store.Sandbox) { r.State = flash.Stopping })
		e.mu.Unlock()
		cancel()
	}
	e.setGone(errDeleted)
	if err := m.destroyMachine(ctx, e); err != nil {
		m.log.Warn("a sandbox could not be removed yet; it is tried again", "sandbox", e.id, "err", err)
		return flash.Errorf(flash.Timeout, "sandbox %s is being removed, but its %s backend does not follow: %s", e.id, before.Backend, flash.AsError(err).Message).
			WithRemediation("nothing need be done: it is tried again until it is gone").WithCause(err)
	}
	reason := "it was deleted"
	if before.Ending != nil {
		reason = fmt.Sprintf("it was deleted after it had ended (%s: %s)", before.Ending.Cause, before.Ending.Message)
	}
	m.forget(ctx, e, reason)
	return nil
}

// destroyMachine removes e's machine, if there is one, and lets its image go.
// It may be called again.
func (m *Manager) destroyMachine(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithTimeout(ctx, m.o.DestroyTimeout)
	defer cancel()
	e.mu.Lock()
	mc, h, b := e.machine, e.rec.Handle, e.backend
	e.mu.Unlock()
	if mc == nil && h != nil {
		var err error
		if mc, err = b.Attach(ctx, *h); err != nil && !errors.Is(err, flash.NotFound) {
			return err
		}
	}
	if mc != nil {
		if err := mc.Destroy(ctx); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.machine = nil
	if e.lease != nil {
		e.lease.Release()
		e.lease = nil
	}
	if e.rec.Handle != nil && e.rec.State == flash.Stopped {
		return m.updateLocked(ctx, e, func(r *store.Sandbox) { r.Handle = nil })
	}
	return nil
}

// graveTime is how long the end of a deleted sandbox can be asked for.
const graveTime = 24 * time.Hour

// forget removes e's record and remembers why. Without a reason nothing is
// remembered: nobody has ever been told the id.
func (m *Manager) forget(ctx context.Context, e *entry, reason string) {
	ctx, cancel := detached(ctx, writeTimeout)
	defer cancel()
	if reason != "" {
		if err := m.o.Store.InsertGrave(ctx, store.Grave{ID: e.id, At: time.Now(), Reason: reason}); err != nil {
			m.log.Warn("the end of a sandbox could not be remembered", "sandbox", e.id, "err", err)
		}
		m.table.graves.Store(e.id, reason)
	}
	if err := m.o.Store.DeleteSandbox(ctx, e.id); err != nil {
		// The record says stopping or creating, so the next start removes it.
		m.log.Error("the record of a sandbox could not be removed", "sandbox", e.id, "err", err)
	}
	m.table.remove(e)
	m.log.Info("sandbox is gone", "sandbox", e.id, "reason", reason)
}

// keep pauses e, whatever it did before, and leaves everything of it.
func (m *Manager) keep(ctx context.Context, e *entry) error {
	if err := e.take(ctx); err != nil {
		return err
	}
	defer e.release()
	mc, sb, err := e.live()
	if err != nil {
		return err
	}
	if sb.State == flash.Paused {
		return nil
	}
	p, err := capability[backend.Pauser](e, mc, backend.CapPause)
	if err != nil {
		return err
	}
	if err := p.Pause(ctx); err != nil {
		return err
	}
	if err := m.update(ctx, e, func(r *store.Sandbox) { r.State = flash.Paused }); err != nil {
		m.wake(ctx, e, mc)
		return err
	}
	return nil
}

// wake takes back a pause that was part of something that failed: the sandbox
// runs again, as its record says or will say. If it can't be woken, it is at
// least shown as what it is, so that Resume is possible.
func (m *Manager) wake(ctx context.Context, e *entry, mc backend.Machine) {
	ctx, cancel := detached(ctx, writeTimeout)
	defer cancel()
	state := flash.Running
	p, err := capability[backend.Pauser](e, mc, backend.CapPause)
	if err == nil {
		err = p.Resume(ctx)
	}
	if err != nil {
		m.log.Error("a sandbox could not be woken again", "sandbox", e.id, "err", err)
		state = flash.Paused
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rec.State == state || !e.rec.State.Live() {
		return
	}
	m.recordLocked(ctx, e, func(r *store.Sandbox) { r.State = state })
}

// Resume implements flash.Service.
func (m *Manager) Resume(ctx context.Context, id flash.ID) error {
	e, err := m.table.find(id)
	if err != nil {
		return err
	}
	if err := e.take(ctx); err != nil {
		return err
	}
	defer e.release()
	mc, sb, err := e.live()
	if err != nil {
		return err
	}
	p, err := capability[backend.Pauser](e, mc, backend.CapPause)
	if err != nil {
		if sb.State == flash.Running {
			return nil
		}
		return err
	}
	// Also when the record says it runs: the machine decides, and resuming
	// one that runs does nothing.
	if err := p.Resume(ctx); err != nil {
		return err
	}
	if sb.State == flash.Running {
		return nil
	}
	return m.update(ctx, e, func(r *store.Sandbox) { r.State = flash.Running })
}

// orphans are machines without a record that could not be removed at once.
type orphans struct {
	mu   sync.Mutex
	list []orphan
}

type orphan struct {
	b *managedBackend
	h backend.Handle
}

// orphan remembers a machine to be removed later.
func (m *Manager) orphan(b *managedBackend, h backend.Handle) {
	m.orphans.mu.Lock()
	defer m.orphans.mu.Unlock()
	m.orphans.list = append(m.orphans.list, orphan{b, h})
}
