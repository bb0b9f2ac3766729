package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// pull is a pull under way, as List shows it.
type pull struct {
	ref    reference
	digest string // guarded by Store.mu
	done   atomic.Int64
	want   atomic.Int64
}

// failure is a pull that failed, shown by List for a while.
type failure struct {
	message string
	at      time.Time
}

const (
	failuresShown = 5 * time.Minute
	maxFailures   = 64
	progressEvery = 5 * time.Second
)

// pull brings an image into the cache and lets its reference mean it. t says
// how the tag is to be kept.
func (s *Store) pull(ctx context.Context, r reference, src source, t tag) error {
	p := &pull{ref: r}
	s.mu.Lock()
	s.pulls[r.key] = p
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pulls[r.key] == p {
			delete(s.pulls, r.key)
		}
	}()

	rctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	res, err := resolve(rctx, src)
	if err != nil {
		return err
	}
	t.digest, t.root = res.digest, res.root
	digest := res.digest.String()
	s.mu.Lock()
	p.digest = digest
	s.mu.Unlock()

	for range 10 {
		if s.setTag(r.key, t) {
			return s.save(false)
		}
		key := "image " + digest
		if !src.shared() {
			key += " from " + r.key // src ends with this call, others must not count on it
		}
		if err := s.flights.do(ctx, key, func(ctx context.Context) error { return s.fetch(ctx, p, src, res) }); err != nil {
			return err
		}
	}
	return flash.Errorf(flash.Exhausted, "image: %s was evicted while it was being pulled; raise the disk budget", shown(r.key))
}

// setTag lets a key mean an image. It is false when that is not cached.
func (s *Store) setTag(key string, t tag) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.images[t.digest.String()]
	if e == nil {
		return false
	}
	e.names[key] = true
	if e.leases == 0 {
		e.lastUsed = time.Now() // or it would be the first to be evicted
	}
	s.tags[key] = &t
	return true
}

// note remembers how a pull ended, for List and the log.
func (s *Store) note(r reference, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failed, r.key)
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	for key, f := range s.failed {
		if time.Since(f.at) > failuresShown {
			delete(s.failed, key)
		}
	}
	if len(s.failed) < maxFailures {
		s.failed[r.key] = failure{message: flash.AsError(err).Message, at: time.Now()}
	}
}

// fetch downloads what is missing of an image and adds it to the cache.
func (s *Store) fetch(ctx context.Context, p *pull, src source, r resolved) error {
	start := time.Now()
	want := map[string]descriptor{}
	for _, d := range append([]descriptor{r.config}, r.layers...) {
		if other, ok := want[d.digest.String()]; ok && other.size != d.size {
			return broken("its manifest gives two sizes for %s", d.digest)
		}
		want[d.digest.String()] = d
	}
	manifest := descriptor{digest: r.digest, size: int64(len(r.manifest))}
	keys := append(slices.Collect(maps.Keys(want)), r.digest.String())
	missing := s.pin(keys, want)
	defer s.unpin(keys)

	total := manifest.size
	for _, d := range missing {
		total += d.size
	}
	if err := s.reserve(total); err != nil {
		return err
	}
	var left atomic.Int64 // reserved and not yet on the disk
	left.Store(total)
	arrived := func(n int64) { left.Add(-n); s.release(n) }
	defer func() { s.release(left.Load()) }()
	p.want.Store(total - manifest.size)

	s.log.Info("pulling image", "image", shown(p.ref.key), "digest", r.digest.String(), "bytes", total, "blobs", len(missing))
	stop := s.reportProgress(p)
	defer stop()
	group, gctx := errgroup.WithContext(ctx)
	for _, d := range missing {
		group.Go(func() error {
			n, err := s.blob(gctx, p, src, d)
			arrived(n)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() == nil {
			s.log.Warn("pulling image failed", "image", shown(p.ref.key), "digest", r.digest.String(), "err", err)
		}
		return err
	}
	if err := s.writeBlob(manifest, r.manifest); err != nil {
		return err
	}
	arrived(manifest.size)
	e, err := s.newEntry(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.images[r.digest.String()] == nil {
		e.lastUsed = time.Now()
		s.images[r.digest.String()] = e
	}
	s.mu.Unlock()
	s.log.Info("pulled image", "image", shown(p.ref.key), "digest", r.digest.String(), "bytes", total, "dur", time.Since(start))
	return nil
}

// reportProgress logs how far a pull is every few seconds until stop is called.
func (s *Store) reportProgress(p *pull) (stop func()) {
	ticker := time.NewTicker(progressEvery)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				s.log.Info("still pulling image", "image", shown(p.ref.key), "bytes", p.done.Load(), "of", p.want.Load())
			}
		}
	}()
	return func() { close(quit); <-done }
}

// pin keeps blobs from being evicted and returns those that are not there.
func (s *Store) pin(keys []string, want map[string]descriptor) []descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []descriptor
	for _, k := range keys {
		s.pinned[k]++
		d, wanted := want[k]
		if size, ok := s.blobs[k]; wanted && (!ok || size != d.size) {
			missing = append(missing, d)
		}
	}
	return missing
}

func (s *Store) unpin(keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if s.pinned[k]--; s.pinned[k] == 0 {
			delete(s.pinned, k)
		}
	}
}

// checkConfig refuses images that can't run here.
func checkConfig(cfg *v1.ConfigFile, layers int) error {
	switch {
	case cfg.OS != "" && cfg.OS != "linux":
		return broken("it is for %s, not for linux", cfg.OS)
	case cfg.Architecture != "" && cfg.Architecture != runtime.GOARCH:
		return broken("it is for %s, and this host is %s", cfg.Architecture, runtime.GOARCH)
	case cfg.RootFS.Type != "layers" && cfg.RootFS.Type != "":
		return broken("its root file system is of the unknown kind %q", cfg.RootFS.Type)
	case len(cfg.RootFS.DiffIDs) != layers:
		return broken("its config lists %d layers, its manifest %d", len(cfg.RootFS.DiffIDs), layers)
	}
	c := cfg.Config
	for _, s := range slices.Concat(c.Env, c.Entrypoint, c.Cmd, []string{c.WorkingDir, c.User}) {
		if strings.IndexByte(s, 0) >= 0 {
			return broken("its config holds a NUL byte")
		}
	}
	return nil
}

// tempFile makes a file that Open removes should it be left behind.
func (s *Store) tempFile() (*os.File, error) {
	f, err := os.CreateTemp(s.path("tmp"), "blob-*")
	if err != nil {
		return nil, diskError(fmt.Errorf("make temporary file: %w", err))
	}
	return f, nil
}
