package fake

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

const (
	stateFile = "files.tar"
	ticksPerS = 100 // USER_HZ, the same on all Linux architectures Go runs on
)

// Snapshot implements backend.Snapshotter. Only files are saved.
func (m *Machine) Snapshot(ctx context.Context, dir string) (backend.Saved, error) {
	unlock, err := m.begin(ctx, OpSnapshot, unix.LOCK_EX)
	if err != nil {
		return backend.Saved{}, err
	}
	defer unlock()
	was := exists(m.pausedFile())
	if err := m.pause(); err != nil {
		return backend.Saved{}, err
	}
	err = m.b.fault(ctx, OpSnapshotPaused, m.id)
	if err == nil {
		err = pack(ctx, filepath.Join(dir, stateFile), m.root())
	}
	data, merr := json.Marshal(m.state)
	if err = errors.Join(err, merr); err != nil {
		if !was && !errors.Is(err, ErrCrash) {
			err = errors.Join(err, m.resume())
		}
		return backend.Saved{}, err
	}
	return backend.Saved{
		StateFile: stateFile,
		Detail:    "Files are in it; memory and processes are not: a restored sandbox runs its command anew.",
		Data:      data,
	}, nil
}

// Restore implements backend.Restorer.
func (b *Backend) Restore(ctx context.Context, s backend.Spec, dir string, v backend.Saved) (backend.Machine, error) {
	if err := b.fault(ctx, OpRestore, s.ID); err != nil {
		return nil, err
	}
	var saved state
	if err := json.Unmarshal(v.Data, &saved); err != nil {
		return nil, flash.Errorf(flash.Invalid, "snapshot_path: is not a snapshot of the fake backend").WithCause(err)
	}
	if len(s.Args) == 0 {
		s.Args = saved.Args
	}
	if len(s.Env) == 0 {
		s.Env = saved.Env
	}
	if s.Dir == "" {
		s.Dir = saved.Dir
	}
	if s.User == "" {
		s.User = saved.User
	}
	return b.make(ctx, s, func(root string) error { return unpack(ctx, filepath.Join(dir, v.StateFile), root) })
}

// Discard implements backend.Restorer. Nothing is kept outside the directory.
func (b *Backend) Discard(context.Context, string, backend.Saved) error { return nil }

// Stats implements backend.StatsReader. Network counters would be the host's
// and stay 0.
func (m *Machine) Stats(ctx context.Context) (backend.Stats, error) {
	if err := m.b.fault(ctx, OpStats, m.id); err != nil {
		return backend.Stats{}, err
	}
	procs, err := processes(m.dir)
	if err != nil {
		return backend.Stats{}, err
	}
	s := backend.Stats{At: time.Now(), CPU: time.Duration(m.cpu.Load()), MemoryLimitBytes: uint64(m.state.MemoryBytes)}
	for _, p := range procs {
		s.CPU += time.Duration(p.ticks) * time.Second / ticksPerS
		s.MemoryUsageBytes += memory(p.pid)
		s.Pids += p.threads
		r, w := readIO(p.pid)
		s.BlockReadBytes += r
		s.BlockWriteBytes += w
	}
	return s, nil
}

// pack writes the tree below root as a tar file.
func pack(ctx context.Context, file, root string) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || path == root {
			return err
		}
		fi, err := d.Info()
		if err != nil || fi.Mode()&fs.ModeSocket != 0 {
			return err
		}
		var link string
		if fi.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(fi, link)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(root, path); err != nil {
			return err
		}
		if err := w.WriteHeader(h); err != nil || !fi.Mode().IsRegular() {
			return err
		}
		src, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = src.Close() }()
		_, err = io.Copy(w, src)
		return err
	})
	return errors.Join(err, w.Close())
}

// unpack is the inverse of pack. os.Root keeps it below root.
func unpack(ctx context.Context, file, root string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	to, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	r := tar.NewReader(f)
	for ctx.Err() == nil {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := extract(to, h, r); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func extract(to *os.Root, h *tar.Header, r io.Reader) error {
	mode := h.FileInfo().Mode()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := to.MkdirAll(h.Name, 0o755); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := to.Symlink(h.Linkname, h.Name); err != nil {
			return err
		}
		return to.Lchown(h.Name, h.Uid, h.Gid)
	case tar.TypeReg:
		f, err := to.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	default:
		return nil // FIFOs and devices: nothing that a test of the manager needs
	}
	if err := to.Chown(h.Name, h.Uid, h.Gid); err != nil {
		return err
	}
	return to.Chmod(h.Name, mode.Perm()|mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
}
