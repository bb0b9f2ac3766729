package gvisor

import (
	"context"
	"errors"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// leftover is a machine that was never handed out and could not be removed. It
// is removed later: by Probe, or by the next Create with its id.
type leftover struct {
	m    *machine
	busy bool // being removed right now; both fields belong to Backend.mu
}

// undo removes a half-made machine, or keeps it to try again.
func (b *Backend) undo(ctx context.Context, m *machine) {
	err := m.remove(ctx)
	if err == nil {
		return
	}
	b.log.Error("a machine that could not be made is left behind for now", "sandbox", m.id, "err", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leftovers[m.id] = &leftover{m: m}
}

// removeLeftover removes the leftover with an id, if there is one. While it
// is busy nobody can make a machine with that id, which it would kill.
func (b *Backend) removeLeftover(ctx context.Context, id flash.ID) error {
	b.mu.Lock()
	l := b.leftovers[id]
	if l == nil {
		b.mu.Unlock()
		return nil
	}
	if l.busy {
		b.mu.Unlock()
		return errors.New("another call is removing it")
	}
	l.busy = true
	b.mu.Unlock()
	err := l.m.remove(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	l.busy = false
	if err == nil {
		delete(b.leftovers, id)
	}
	return err
}

// forgetLeftover is for when somebody else has removed the machine. The caller
// holds b.mu.
func (b *Backend) forgetLeftover(id flash.ID) {
	if l := b.leftovers[id]; l != nil && !l.busy {
		delete(b.leftovers, id)
	}
}

// removeLeftovers tries all leftovers again.
func (b *Backend) removeLeftovers(ctx context.Context) {
	b.mu.Lock()
	ids := make([]flash.ID, 0, len(b.leftovers))
	for id, l := range b.leftovers {
		if !l.busy {
			ids = append(ids, id)
		}
	}
	b.mu.Unlock()
	for _, id := range ids {
		if err := b.removeLeftover(ctx, id); err != nil {
			b.log.Warn("a machine that could not be made is still left behind", "sandbox", id, "err", err)
		}
	}
}
