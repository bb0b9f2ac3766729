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

// Reconcile compares the records with what really runs, and is the ordinary
// way to start: it adopts machines that still stand, marks those that ended
// or were lost with their cause, finishes deletes, takes back half-made
// creates, and removes what nobody owns. Backends that are not available now
// are reconciled by Run once they are.
func (m *Manager) Reconcile(ctx context.Context) error {
	began := time.Now()
	recs, err := m.o.Store.Sandboxes(ctx)
	if err != nil {
		return fmt.Errorf("read sandboxes: %w", err)
	}
	snaps, err := m.o.Store.Snapshots(ctx)
	if err != nil {
		return fmt.Errorf("read snapshots: %w", err)
	}
	graves, err := m.o.Store.Graves(ctx)
	if err != nil {
		return fmt.Errorf("read graves: %w", err)
	}
	for _, g := range graves {
		m.table.graves.Store(g.ID, g.Reason)
	}
	for _, sn := range snaps {
		m.putSnapshot(ctx, sn)
	}
	for _, rec := range recs {
		b := m.backendNamed(rec.Backend)
		if b == nil {
			// Its machine may well run on, but this daemon was started without
			// the backend that could tell.
			b = &managedBackend{Backend: absent{rec.Backend}, name: rec.Backend, err: errAbsent}
		}
		e := newEntry(rec, b)
		m.holdImage(ctx, e)
		m.table.add(e)
	}
	// Each backend by itself, so that one that hangs holds up neither the
	// others nor the start: what is not done in time Run does later.
	bounded, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, b := range m.backends {
		wg.Go(func() {
			if err := b.check(bounded); err != nil {
				m.log.Warn("sandboxes of a backend wait for it to come back", "backend", b.name, "reason", b.reason())
				return
			}
			m.reconcileBackend(bounded, b)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for e := range m.table.all() {
		m.settle(ctx, e)
	}
	if !m.o.AdoptUnknown { // lost records say nothing about snapshots
		m.sweepSnapshots(ctx)
	}
	m.log.Info("records and machines agree", "sandboxes", len(recs), "snapshots", len(snaps), "dur", time.Since(began))
	return nil
}

// holdImage leases the image under a sandbox of an earlier daemon, before
// anything could evict it and whether or not its backend is there yet. An
// image that an engine keeps has no lease.
func (m *Manager) holdImage(ctx context.Context, e *entry) {
	if e.rec.Digest == "" || e.rec.Handle == nil {
		return
	}
	l, err := m.o.Images.AcquireDigest(ctx, e.rec.Digest)
	if err != nil {
		m.log.Debug("no image to hold for a sandbox", "sandbox", e.id, "image", e.rec.Image, "err", err)
		return
	}
	e.lease = l
}

// settle finishes what a crash interrupted for an entry whose record names no
// machine, which needs no backend.
func (m *Manager) settle(ctx context.Context, e *entry) {
	e.mu.Lock()
	none := e.rec.Handle == nil
	e.mu.Unlock()
	if !none {
		return
	}
	switch e.view.Load().State {
	case flash.Creating:
		m.forget(ctx, e, "the daemon died while it was being created")
	case flash.Stopping:
		m.forget(ctx, e, "it was deleted")
	case flash.Running, flash.Paused:
		m.lost(ctx, e, "its record names no machine")
	}
}

// startTimeout bounds how long a start waits for backends to give their
// machines back.
const startTimeout = 15 * time.Second

// reconcileBackend does the work of Reconcile for one backend. What fails now
// is tried again by Run.
func (m *Manager) reconcileBackend(ctx context.Context, b *managedBackend) {
	for e := range m.table.all() {
		if e.backend == b {
			m.tryAdopt(ctx, e)
		}
	}
	for h, err := range b.List(ctx) {
		if err != nil {
			m.log.Warn("a backend's machines could not all be listed yet", "backend", b.name, "err", err)
			return
		}
		if e, err := m.table.find(h.ID); err == nil && e.backend == b {
			if s := e.view.Load().State; s.Live() || s == flash.Stopping {
				continue
			}
		}
		if m.o.AdoptUnknown && m.adoptUnknown(ctx, b, h) {
			continue
		}
		m.log.Info("removing a machine that nobody owns", "backend", b.name, "sandbox", h.ID)
		if err := m.destroyHandle(ctx, b, h); err != nil {
			m.log.Warn("a machine that nobody owns could not be removed yet", "backend", b.name, "sandbox", h.ID, "err", err)
			m.orphan(b, h)
		}
	}
	if ctx.Err() != nil {
		return
	}
	b.mu.Lock()
	b.reconciled = true
	b.mu.Unlock()
}

// tryAdopt adopts e unless somebody is at it, such as a create that waits for
// its image.
func (m *Manager) tryAdopt(ctx context.Context, e *entry) {
	select {
	case e.turn <- struct{}{}:
	default:
		return
	}
	defer e.release()
	if err := m.adopt(ctx, e); err != nil && ctx.Err() == nil {
		m.log.Warn("a sandbox could not be brought in line yet", "sandbox", e.id, "backend", e.backend.name, "err", err)
	}
}

// adoptUnknown gives a running machine without a record a new one. What only
// the lost record knew (image, command, limits) stays empty. It reports false
// for a machine that does not run, which is then removed.
func (m *Manager) adoptUnknown(ctx context.Context, b *managedBackend, h backend.Handle) bool {
	mc, err := b.Attach(ctx, h)
	if err != nil {
		return false
	}
	status, err := mc.Status(ctx)
	if err != nil || status == backend.StatusEnded {
		return false
	}
	h = mc.Handle()
	rec := &store.Sandbox{Sandbox: flash.Sandbox{ID: h.ID, State: flash.Running, Backend: b.name, CreatedAt: time.Now(), ReadyAt: time.Now()}, Handle: &h}
	if status == backend.StatusPaused {
		rec.State = flash.Paused
	}
	if err := m.o.Store.InsertSandbox(ctx, rec); err != nil {
		m.log.Error("a running sandbox could not be recorded again", "sandbox", h.ID, "err", err)
		return true // it is left alone rather than removed
	}
	e := newEntry(rec, b)
	e.machine = mc
	m.table.add(e)
	m.log.Warn("sandbox adopted without its lost record", "sandbox", h.ID, "backend", b.name)
	m.watch(e)
	return true
}

// adopt makes e, whose turn the caller has, what its machine really is. An
// error means: not now.
func (m *Manager) adopt(ctx context.Context, e *entry) error {
	if now, err := m.table.find(e.id); err != nil || now != e {
		return nil // a delete was first
	}
	e.mu.Lock()
	rec, have := e.rec, e.machine != nil
	e.mu.Unlock()
	switch rec.State {
	case flash.Creating:
		if e.abort == nil { // of an earlier daemon, not one being made now
			m.forget(ctx, e, "the daemon died while it was being created") // its machine is removed as nobody's
		}
		return nil
	case flash.Stopping:
		return m.remove(ctx, e)
	case flash.Stopped, flash.Failed:
		if rec.Handle != nil {
			return m.destroyMachine(ctx, e)
		}
		return nil
	}
	if have {
		return nil
	}
	if rec.Handle == nil {
		m.lost(ctx, e, "its record names no machine")
		return nil
	}
	mc, err := e.backend.Attach(ctx, *rec.Handle)
	if errors.Is(err, flash.NotFound) {
		m.lost(ctx, e, "the "+e.backend.name+" backend no longer has its machine")
		return nil
	}
	if err != nil {
		return err
	}
	status, err := mc.Status(ctx)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.machine = mc
	e.mu.Unlock()
	state := rec.State
	switch status {
	case backend.StatusPaused:
		state = flash.Paused
	case backend.StatusRunning:
		state = flash.Running
	}
	if state != rec.State { // a crash fell between the effect and its record
		if err := m.update(ctx, e, func(r *store.Sandbox) { r.State = state }); err != nil {
			return err
		}
	}
	m.log.Info("sandbox adopted", "sandbox", e.id, "backend", rec.Backend, "state", string(state))
	m.watch(e)
	return nil
}

// lost marks a sandbox whose machine is gone without anybody having seen how.
func (m *Manager) lost(ctx context.Context, e *entry, why string) {
	end := flash.Ending{Cause: flash.CauseBackendLost, ExitCode: -1, Message: why}
	e.setGone(&endedError{end})
	if err := m.update(ctx, e, func(r *store.Sandbox) { r.State, r.Ending, r.Handle = flash.Failed, &end, nil }); err != nil {
		m.log.Error("the loss of a sandbox could not be stored", "sandbox", e.id, "err", err)
	}
	m.metrics.ended(e.view.Load().Backend, end.Cause)
}

func (m *Manager) destroyHandle(ctx context.Context, b *managedBackend, h backend.Handle) error {
	ctx, cancel := context.WithTimeout(ctx, m.o.DestroyTimeout)
	defer cancel()
	mc, err := b.Attach(ctx, h)
	if errors.Is(err, flash.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return mc.Destroy(ctx)
}

// retryInterval is how often Run looks for work that could not be done yet.
const retryInterval = 2 * time.Second

// Run does what could not be done at once: deletes whose backend did not
// follow, machines nobody owns, sandboxes of a backend that has come back. It
// returns when ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(retryInterval)
	defer tick.Stop()
	lastGraves := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		m.retry(ctx)
		if time.Since(lastGraves) > time.Hour {
			lastGraves = time.Now()
			m.dropGraves(ctx)
		}
	}
}

func (m *Manager) retry(ctx context.Context) {
	m.orphans.mu.Lock()
	list := m.orphans.list
	m.orphans.list = nil
	m.orphans.mu.Unlock()
	var wg sync.WaitGroup
	for _, b := range m.backends {
		wg.Go(func() { m.retryBackend(ctx, b, list) })
	}
	wg.Wait()
}

// retryBackend is retry for one backend. One that hangs delays only itself for
// as long as its calls take; the next round waits for it.
func (m *Manager) retryBackend(ctx context.Context, b *managedBackend, orphans []orphan) {
	up := b.check(ctx) == nil
	for _, o := range orphans {
		if o.b == b && (!up || m.destroyHandle(ctx, o.b, o.h) != nil) {
			m.orphan(o.b, o.h)
		}
	}
	if !up {
		return
	}
	b.mu.Lock()
	done := b.reconciled
	b.mu.Unlock()
	if !done {
		m.reconcileBackend(ctx, b)
		return
	}
	for e := range m.table.all() {
		if e.backend == b && m.unsettled(e) {
			m.tryAdopt(ctx, e)
		}
	}
}

// unsettled reports whether e waits for something its backend did not do.
func (m *Manager) unsettled(e *entry) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch e.rec.State {
	case flash.Stopping:
		return true
	case flash.Running, flash.Paused:
		return e.machine == nil
	case flash.Stopped, flash.Failed:
		return e.rec.Handle != nil
	}
	return false
}

func (m *Manager) dropGraves(ctx context.Context) {
	before := time.Now().Add(-graveTime)
	graves, err := m.o.Store.Graves(ctx)
	if err == nil {
		err = m.o.Store.DropGraves(ctx, before)
	}
	if err != nil {
		m.log.Warn("old graves could not be dropped", "err", err)
		return
	}
	for _, g := range graves {
		if g.At.Before(before) {
			m.table.graves.Delete(g.ID)
		}
	}
}
