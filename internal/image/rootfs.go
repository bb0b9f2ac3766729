package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/image/unpack"
)

// Rootfs returns the directory that the image is unpacked in, and unpacks it
// first if nobody has. The directory is shared: nothing may write to it.
func (l *Lease) Rootfs(ctx context.Context) (string, error) {
	s, e := l.store, l.entry
	s.mu.Lock()
	ready, released := e.unpacked, l.released
	if !ready && !released {
		// The unpacking may outlive this caller's lease.
		e.busy++
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			e.busy--
		}()
	}
	s.mu.Unlock()
	dir := s.path("rootfs", e.digest.Hex)
	switch {
	case released:
		return "", errors.New("image: lease was released before")
	case ready:
		return dir, nil
	}
	err := s.flights.do(ctx, "rootfs "+e.digest.String(), func(ctx context.Context) error { return s.unpack(ctx, e) })
	if err != nil {
		return "", err
	}
	return dir, nil
}

// unpack makes an image's directory.
func (s *Store) unpack(ctx context.Context, e *entry) error {
	s.mu.Lock()
	if e.unpacked {
		s.mu.Unlock()
		return nil
	}
	e.busy++
	e.unpacking = true
	s.mu.Unlock()
	var reserved int64
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.busy--
		e.unpacking = false
		s.reserved -= reserved
	}()
	start := time.Now()
	tmp, err := os.MkdirTemp(s.path("tmp"), "rootfs-*")
	if err != nil {
		return diskError(err)
	}
	stats, err := s.unpackInto(ctx, tmp, e, func(n int64) error {
		err := s.reserve(n)
		if err == nil {
			reserved += n
		}
		return err
	})
	if err != nil {
		if rerr := os.RemoveAll(tmp); rerr != nil {
			s.log.Warn("can't remove a half unpacked image", "path", tmp, "err", rerr)
		}
		return diskError(s.suspect(e, err))
	}
	s.mu.Lock()
	err = os.Rename(tmp, s.path("rootfs", e.digest.Hex))
	if err == nil {
		e.unpacked, e.rootfsBytes = true, stats.Bytes
		s.used += stats.Bytes
		s.reserved -= reserved
		reserved = 0
	}
	s.mu.Unlock()
	if err != nil {
		_ = os.RemoveAll(tmp)
		return diskError(err)
	}
	if stats.Devices > 0 {
		s.log.Debug("left device nodes out of an image", "digest", e.digest.String(), "devices", stats.Devices)
	}
	s.log.Info("unpacked image", "digest", e.digest.String(), "bytes", stats.Bytes, "entries", stats.Entries, "dur", time.Since(start))
	return s.save(false)
}

func (s *Store) unpackInto(ctx context.Context, dir string, e *entry, reserve func(int64) error) (unpack.Stats, error) {
	opts := unpack.Options{MaxEntries: s.cfg.MaxEntries, MaxBytes: s.cfg.MaxBytes, Reserve: reserve}
	tree, err := unpack.New(dir, opts)
	if err != nil {
		return unpack.Stats{}, err
	}
	for i, d := range e.parts.layers {
		if err = s.applyLayer(ctx, tree, d, e.diffIDs[i].String(), opts); err != nil {
			break
		}
	}
	stats, cerr := tree.Close()
	if err == nil {
		err = cerr
	}
	return stats, err
}

func (s *Store) applyLayer(ctx context.Context, tree *unpack.Tree, d descriptor, diffID string, opts unpack.Options) error {
	f, err := os.Open(s.blobPath(d.digest))
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer func() { _ = f.Close() }()
	l := unpack.OpenLayer(ctx, f, d.size, opts)
	defer l.Close()
	if err := tree.Apply(ctx, l); err != nil {
		return err
	}
	return l.Verify(diffID)
}

// suspect looks, after an image could not be unpacked, whether its blobs have
// been damaged on the disk. Damaged ones are forgotten, so that they are pulled anew.
func (s *Store) suspect(e *entry, err error) error {
	if !errors.Is(err, flash.Invalid) && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	damaged := false
	for _, d := range e.parts.layers {
		if s.intact(d) {
			continue
		}
		damaged = true
		s.mu.Lock()
		if size, ok := s.blobs[d.digest.String()]; ok {
			_ = os.Remove(s.blobPath(d.digest))
			delete(s.blobs, d.digest.String())
			s.used -= size
		}
		s.mu.Unlock()
	}
	if !damaged {
		return err
	}
	var trash []string
	s.mu.Lock()
	if s.images[e.digest.String()] == e {
		trash = s.forgetLocked(e)
	}
	s.mu.Unlock()
	s.empty(trash)
	s.log.Error("an image in the cache was damaged on the disk and is pulled anew when asked for", "digest", e.digest.String(), "err", err)
	return flash.Errorf(flash.Unavailable, "image: its copy in the cache was damaged and has been removed; try again").WithCause(err)
}
