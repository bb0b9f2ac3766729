package manager

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// intentFile stands in a snapshot's folder from before its first byte is
// written, and says which backend may hold something of it.
const intentFile = "flash-snapshot.json"

type intent struct {
	Backend string   `json:"backend"`
	Sandbox flash.ID `json:"sandbox"`
}

// snapshots are the known snapshots, also by the path that users hand back.
type snapshots struct {
	mu     sync.RWMutex
	byID   map[flash.ID]*store.Snapshot
	byPath map[string]*store.Snapshot
	leases map[flash.ID]Lease // the images that memory refers to
}

func (s *snapshots) put(sn *store.Snapshot, l Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID, s.byPath, s.leases = map[flash.ID]*store.Snapshot{}, map[string]*store.Snapshot{}, map[flash.ID]Lease{}
	}
	s.byID[sn.ID], s.byPath[sn.SnapshotPath] = sn, sn
	if l != nil {
		s.leases[sn.ID] = l
	}
}

// putSnapshot makes sn known and holds the image its memory refers to.
func (m *Manager) putSnapshot(ctx context.Context, sn *store.Snapshot) {
	var lease Lease
	if sn.Memory {
		l, err := m.o.Images.AcquireDigest(ctx, sn.Sandbox.Digest)
		if err != nil {
			m.log.Warn("a snapshot's image is no longer cached", "snapshot", sn.ID, "image", sn.Sandbox.Image, "err", err)
		} else {
			lease = l
		}
	}
	m.snaps.put(sn, lease)
}

func (s *snapshots) drop(sn *store.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, sn.ID)
	delete(s.byPath, sn.SnapshotPath)
	if l := s.leases[sn.ID]; l != nil {
		l.Release()
		delete(s.leases, sn.ID)
	}
}

func (s *snapshots) get(id flash.ID) *store.Snapshot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

// forRestore returns the snapshot that o names, or nil if o names none. A
// path is only ever compared with those handed out; it is never opened.
func (s *snapshots) forRestore(o *flash.CreateOptions, dir string) (*store.Snapshot, error) {
	if o.SnapshotPath == "" {
		return nil, nil
	}
	s.mu.RLock()
	sn := s.byPath[o.SnapshotPath]
	s.mu.RUnlock()
	if sn == nil {
		if !strings.HasPrefix(filepath.Clean(o.SnapshotPath), dir+string(filepath.Separator)) {
			return nil, flash.Errorf(flash.Denied, "snapshot_path: is not in this daemon's snapshot store; give a path that a snapshot returned")
		}
		return nil, flash.Errorf(flash.Invalid, "snapshot_path: no snapshot has this path; it may have been deleted")
	}
	switch {
	case o.MemFilePath != "" && o.MemFilePath != sn.MemFilePath:
		return nil, flash.Errorf(flash.Invalid, "mem_file_path: does not belong to the snapshot that snapshot_path names")
	case o.Image != "" && o.Image != sn.Sandbox.Image:
		return nil, flash.Errorf(flash.Invalid, "image: is %q, but the snapshot was taken of %q; leave it empty", o.Image, sn.Sandbox.Image)
	case len(o.Command) > 0 && sn.Memory && !slices.Equal(o.Command, sn.Sandbox.Command):
		return nil, flash.Errorf(flash.Invalid, "command: the snapshot holds the running command; leave it empty, and run others with exec")
	}
	if t := strings.ToLower(o.Type); t == "" || t == "auto" || t == "any" {
		o.Type = sn.Backend
	}
	return sn, nil
}

// Snapshots implements flash.Service.
func (m *Manager) Snapshots(context.Context) ([]*flash.Snapshot, error) {
	m.snaps.mu.RLock()
	defer m.snaps.mu.RUnlock()
	list := []*flash.Snapshot{}
	for _, sn := range m.snaps.byID {
		c := sn.Snapshot
		list = append(list, &c)
	}
	slices.SortFunc(list, func(a, b *flash.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return list, nil
}

// Snapshot implements flash.Service.
func (m *Manager) Snapshot(ctx context.Context, id flash.ID) (_ *flash.Snapshot, err error) {
	e, err := m.table.find(id)
	if err != nil {
		return nil, err
	}
	if err := e.take(ctx); err != nil {
		return nil, err
	}
	defer e.release()
	mc, sb, err := e.live()
	if err != nil {
		return nil, err
	}
	s, err := capability[backend.Snapshotter](e, mc, backend.CapSnapshot)
	if err != nil {
		return nil, err
	}

	if sb.Image == "" {
		return nil, flash.Errorf(flash.Conflict, "sandbox %s was found again without its record, and a snapshot needs to know its image", id).
			WithRemediation("copy what you need out of it")
	}
	snapID := flash.NewSnapshotID()
	dir := filepath.Join(m.o.SnapshotDir, string(snapID))
	state := filepath.Join(dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, diskError("the snapshot's folder could not be made", err)
	}
	tried := false
	defer func() {
		if err == nil {
			return
		}
		// First the folder: waking may need the room that it takes. A
		// snapshot that failed changes nothing, so a sandbox that ran runs on.
		m.discard(ctx, e.backend, dir, backend.Saved{})
		if tried && sb.State == flash.Running {
			m.wake(ctx, e, mc)
		}
	}()
	note, err := json.Marshal(intent{Backend: sb.Backend, Sandbox: id})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, intentFile), note, 0o600); err != nil {
		return nil, diskError("the snapshot could not be written", err)
	}
	tried = true
	saved, err := s.Snapshot(ctx, state)
	if err != nil {
		return nil, diskError("the snapshot could not be written", err)
	}

	e.mu.Lock()
	rec := *e.rec
	e.mu.Unlock()
	sn := &store.Snapshot{
		Snapshot: flash.Snapshot{
			ID: snapID, SandboxID: id, Backend: sb.Backend, Memory: saved.Memory, Detail: saved.Detail,
			SnapshotPath: filepath.Join(state, saved.StateFile), SizeBytes: treeSize(dir), CreatedAt: time.Now(),
		},
		Saved: saved, Dir: state, Sandbox: rec,
	}
	if saved.MemFile != "" {
		sn.MemFilePath = filepath.Join(state, saved.MemFile)
	}
	if sb.State == flash.Running {
		if err := m.update(ctx, e, func(r *store.Sandbox) { r.State = flash.Paused }); err != nil {
			return nil, err
		}
	}
	write, cancel := detached(ctx, writeTimeout)
	defer cancel()
	if err := m.o.Store.InsertSnapshot(write, sn); err != nil {
		return nil, err
	}
	m.putSnapshot(write, sn)
	m.log.Info("snapshot taken", "sandbox", id, "snapshot", snapID, "backend", sb.Backend, "bytes", sn.SizeBytes, "memory", sn.Memory)
	c := sn.Snapshot
	return &c, nil
}

// DeleteSnapshot implements flash.Service.
func (m *Manager) DeleteSnapshot(ctx context.Context, id flash.ID) error {
	sn := m.snaps.get(id)
	if sn == nil {
		return &flash.Error{Code: flash.NotFound, Reason: "snapshot_not_found", Message: "snapshot " + string(id) + " does not exist"}
	}
	ctx, cancel := detached(ctx, m.o.DestroyTimeout)
	defer cancel()
	if err := m.o.Store.DeleteSnapshot(ctx, id); err != nil {
		return err
	}
	m.snaps.drop(sn)
	m.discard(ctx, m.backendNamed(sn.Backend), filepath.Dir(sn.Dir), sn.Saved)
	m.log.Info("snapshot deleted", "snapshot", id)
	return nil
}

// discard removes what a snapshot left on disk and in its backend. What it
// can't remove now, the next start does: the folder with its intent goes last.
func (m *Manager) discard(ctx context.Context, b *managedBackend, dir string, saved backend.Saved) {
	ctx, cancel := detached(ctx, m.o.DestroyTimeout)
	defer cancel()
	if b != nil {
		if r, ok := backend.As[backend.Restorer](b); ok {
			if err := r.Discard(ctx, filepath.Join(dir, "state"), saved); err != nil {
				m.log.Warn("a snapshot could not be removed yet", "snapshot", filepath.Base(dir), "err", err)
				return
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		m.log.Warn("a snapshot's folder could not be removed", "dir", filepath.Base(dir), "err", err)
	}
}

// sweepSnapshots removes folders that no record knows: what a crash left.
func (m *Manager) sweepSnapshots(ctx context.Context) {
	dirs, err := os.ReadDir(m.o.SnapshotDir)
	if err != nil {
		return
	}
	for _, d := range dirs {
		if m.snaps.get(flash.ID(d.Name())) != nil {
			continue
		}
		dir := filepath.Join(m.o.SnapshotDir, d.Name())
		var note intent
		if b, err := os.ReadFile(filepath.Join(dir, intentFile)); err == nil {
			_ = json.Unmarshal(b, &note)
		}
		b := m.backendNamed(note.Backend)
		if b == nil && note.Backend != "" {
			continue // only that backend can remove what it holds of it
		}
		m.log.Info("removing an unfinished snapshot", "snapshot", d.Name())
		m.discard(ctx, b, dir, backend.Saved{})
	}
}

// treeSize is how many bytes the files below dir take on disk.
func treeSize(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if fi, err := d.Info(); err == nil {
				n += diskSize(fi)
			}
		}
		return nil
	})
	return n
}
