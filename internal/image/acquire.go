package image

import (
	"context"
	"errors"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Acquire returns the image that a reference names, pulled if need be, held
// until the lease is released. However many ask for an image at once, it is
// pulled once; the pull ends when all of them have left.
//
// A tag is believed for Config.TagTTL; then its registry is asked whether it
// has moved. If the registry can't be reached the cached image is used, also
// when a mirror lacks it.
//
// Errors: Invalid for a malformed reference and, with the reason
// "image_not_found", for an image that no registry has; Denied; Unavailable
// when registries can't be reached; Exhausted when the disk or the budget is
// full.
func (s *Store) Acquire(ctx context.Context, ref string) (*Lease, error) {
	r, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	if r.named == nil {
		return s.acquireFile(ctx, r)
	}
	if l := s.lease(r, s.fresh); l != nil {
		return l, nil
	}
	return s.acquireBy(ctx, r, "ref "+r.key, func(ctx context.Context) error { return s.refresh(ctx, r) })
}

// acquireBy makes the image there by get, and leases it.
func (s *Store) acquireBy(ctx context.Context, r reference, key string, get func(context.Context) error) (*Lease, error) {
	// Between the end of get and the lease, others may evict the image.
	for range 10 {
		err := s.flights.do(ctx, key, func(ctx context.Context) error {
			err := get(ctx)
			s.note(r, err)
			return err
		})
		if err != nil {
			if s.ctx.Err() != nil && ctx.Err() == nil {
				return nil, flash.Errorf(flash.Unavailable, "image: the daemon is shutting down")
			}
			return nil, err
		}
		if l := s.lease(r, func(*tag) bool { return true }); l != nil {
			return l, nil
		}
	}
	return nil, flash.Errorf(flash.Exhausted, "image: %s was evicted again and again before it could be used; raise the disk budget", shown(r.key))
}

// fresh reports whether a tag need not be looked up again yet.
func (s *Store) fresh(t *tag) bool { return t.fixed || time.Since(t.checked) < s.cfg.TagTTL }

// lease returns a lease of what a reference means, if that is cached and good.
func (s *Store) lease(r reference, good func(*tag) bool) *Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tags[r.key]
	if t == nil || !good(t) || s.closed {
		return nil
	}
	e := s.images[t.digest.String()]
	if e == nil {
		return nil
	}
	return s.leaseLocked(e, r.given)
}

func (s *Store) leaseLocked(e *entry, ref string) *Lease {
	e.leases++
	e.lastUsed = time.Now()
	return &Lease{store: s, entry: e, ref: ref}
}

// AcquireDigest leases a cached image by its manifest digest, without asking
// any registry. The error is NotFound when it is not cached.
func (s *Store) AcquireDigest(ctx context.Context, digest string) (*Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.images[digest]
	if e == nil || s.closed {
		return nil, flash.Errorf(flash.NotFound, "image %s is not cached", digest)
	}
	ref := digest
	for key, t := range s.tags {
		if t.digest == e.digest {
			ref = shown(key)
			break
		}
	}
	return s.leaseLocked(e, ref), nil
}

// acquireFile is Acquire for images that are files. They are looked at each
// time, so that a changed file counts at once.
func (s *Store) acquireFile(ctx context.Context, r reference) (*Lease, error) {
	f, err := s.openFiles(r)
	if err != nil {
		return nil, err
	}
	mark, err := f.fingerprint(r)
	f.close()
	if err != nil {
		return nil, err
	}
	if l := s.lease(r, func(t *tag) bool { return t.fingerprint == mark }); l != nil {
		return l, nil
	}
	return s.acquireBy(ctx, r, "file "+r.key+" "+mark, func(ctx context.Context) error {
		f, err := s.openFiles(r)
		if err != nil {
			return err
		}
		var src source
		if r.transport == ociDir {
			src = newLayoutDir(r, f)
		} else if src, err = openArchive(ctx, r, f); err != nil {
			return err
		}
		defer src.close()
		return s.pull(ctx, r, src, tag{fingerprint: mark, checked: time.Now()})
	})
}

// refresh makes a tag of a registry fresh: it asks whether it has moved, and
// pulls where needed.
func (s *Store) refresh(ctx context.Context, r reference) error {
	src, err := s.registrySource(r.named)
	if err != nil {
		return err
	}
	root, cached := s.cachedRoot(r)
	if cached {
		if moved, err := s.recheck(ctx, r, src, root); err != nil || !moved {
			return err
		}
	}
	err = s.pull(ctx, r, src, tag{checked: time.Now(), fixed: r.fixed()})
	if cached && ctx.Err() == nil && errors.Is(err, errUndecided) {
		// A mirror that has the tag and not, or not yet, all of its image.
		s.keepTag(r, err)
		return nil
	}
	return err
}

// keepTag lets a cached tag count as looked up, since its registry can't be asked.
func (s *Store) keepTag(r reference, err error) {
	s.log.Warn("used a cached image, since its registry can't be asked", "image", shown(r.key), "err", err)
	s.touchTag(r)
}

func (s *Store) touchTag(r reference) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tags[r.key]; t != nil {
		t.checked = time.Now()
	}
}

// recheck asks whether a cached tag means something else now.
func (s *Store) recheck(ctx context.Context, r reference, src *registrySource, root v1.Hash) (moved bool, err error) {
	hctx, cancel := context.WithTimeout(ctx, recheckTimeout)
	defer cancel()
	now, err := src.head(hctx)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, flash.Unavailable), errors.Is(err, errUndecided):
		s.keepTag(r, err)
		return false, nil
	case err != nil:
		return false, err
	case now != root:
		return true, nil
	}
	s.touchTag(r)
	return false, nil
}

// cachedRoot returns what a tag's registry called it when it was pulled.
func (s *Store) cachedRoot(r reference) (v1.Hash, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tags[r.key]
	if t == nil || s.images[t.digest.String()] == nil {
		return v1.Hash{}, false
	}
	return t.root, true
}
