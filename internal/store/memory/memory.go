// Package memory is a store.Store that lives and dies with the process, for
// tests and for a daemon that needs no records. It is not a cache in front of
// another store.
//
//	st := memory.New()
//	defer st.Close()
package memory

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// Store keeps records in maps, encoded just as a durable store keeps them, so
// that callers share no memory with it and meet the same limits.
type Store struct {
	mu        sync.Mutex
	closed    bool
	seq       int64
	sandboxes map[flash.ID]row
	snapshots map[flash.ID]row
	graves    map[flash.ID]store.Grave
}

type row struct {
	seq  int64 // order of insertion
	rev  int64
	data []byte
}

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{
		sandboxes: make(map[flash.ID]row),
		snapshots: make(map[flash.ID]row),
		graves:    make(map[flash.ID]store.Grave),
	}
}

// lock takes the mutex, or says why the store can't be used.
func (s *Store) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return flash.AsError(err)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return store.ErrClosed()
	}
	return nil
}

func (s *Store) insert(rows map[flash.ID]row, kind string, id flash.ID, data []byte) error {
	if _, ok := rows[id]; ok {
		return store.ErrExists(kind, id)
	}
	s.seq++
	rows[id] = row{seq: s.seq, rev: 1, data: data}
	return nil
}

// InsertSandbox implements store.Store.
func (s *Store) InsertSandbox(ctx context.Context, sb *store.Sandbox) error {
	data, err := store.EncodeSandbox(sb)
	if err != nil {
		return err
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := s.insert(s.sandboxes, "sandbox", sb.ID, data); err != nil {
		return err
	}
	sb.Rev = 1
	return nil
}

// UpdateSandbox implements store.Store.
func (s *Store) UpdateSandbox(ctx context.Context, sb *store.Sandbox) error {
	data, err := store.EncodeSandbox(sb)
	if err != nil {
		return err
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r, ok := s.sandboxes[sb.ID]
	if !ok {
		return flash.SandboxNotFound(sb.ID, "")
	}
	if r.rev != sb.Rev {
		return store.ErrConflict(sb.ID, sb.Rev, r.rev)
	}
	r.rev++
	r.data = data
	s.sandboxes[sb.ID] = r
	sb.Rev = r.rev
	return nil
}

// DeleteSandbox implements store.Store.
func (s *Store) DeleteSandbox(ctx context.Context, id flash.ID) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	delete(s.sandboxes, id)
	return nil
}

// Sandboxes implements store.Store.
func (s *Store) Sandboxes(ctx context.Context) ([]*store.Sandbox, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var out []*store.Sandbox
	for _, r := range inOrder(s.sandboxes) {
		sb, err := store.DecodeSandbox(r.data, r.rev)
		if err != nil {
			return nil, err
		}
		out = append(out, sb)
	}
	store.SortSandboxes(out)
	return out, nil
}

// InsertSnapshot implements store.Store.
func (s *Store) InsertSnapshot(ctx context.Context, sn *store.Snapshot) error {
	data, err := store.EncodeSnapshot(sn)
	if err != nil {
		return err
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	return s.insert(s.snapshots, "snapshot", sn.ID, data)
}

// DeleteSnapshot implements store.Store.
func (s *Store) DeleteSnapshot(ctx context.Context, id flash.ID) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	delete(s.snapshots, id)
	return nil
}

// Snapshots implements store.Store.
func (s *Store) Snapshots(ctx context.Context) ([]*store.Snapshot, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var out []*store.Snapshot
	for _, r := range inOrder(s.snapshots) {
		sn, err := store.DecodeSnapshot(r.data)
		if err != nil {
			return nil, err
		}
		out = append(out, sn)
	}
	store.SortSnapshots(out)
	return out, nil
}

// InsertGrave implements store.Store.
func (s *Store) InsertGrave(ctx context.Context, g store.Grave) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.graves[g.ID] = g
	return nil
}

// Graves implements store.Store.
func (s *Store) Graves(ctx context.Context) ([]store.Grave, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var out []store.Grave
	for _, g := range s.graves {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b store.Grave) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// DropGraves implements store.Store.
func (s *Store) DropGraves(ctx context.Context, before time.Time) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for id, g := range s.graves {
		if g.At.Before(before) {
			delete(s.graves, id)
		}
	}
	return nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func inOrder(rows map[flash.ID]row) []row {
	out := make([]row, 0, len(rows))
	for _, r := range rows {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b row) int { return cmp.Compare(a.seq, b.seq) })
	return out
}
