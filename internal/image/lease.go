package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Lease holds an image: until Release it is not evicted. Its methods are safe
// for concurrent use.
type Lease struct {
	store    *Store
	entry    *entry
	ref      string
	released bool // guarded by store.mu
}

var (
	_ backend.RootfsImage  = (*Lease)(nil)
	_ backend.ArchiveImage = (*Lease)(nil)
)

// Reference returns the reference as the user wrote it, or, after
// AcquireDigest, one that means this image.
func (l *Lease) Reference() string { return l.ref }

// Digest returns the digest of the image's manifest for this platform.
func (l *Lease) Digest() string { return l.entry.digest.String() }

// ConfigDigest returns the digest of the image's config.
func (l *Lease) ConfigDigest() string { return l.entry.parts.config.digest.String() }

// Config returns what the image says of how to run it.
func (l *Lease) Config() backend.ImageConfig {
	c := l.entry.config
	c.Env, c.Entrypoint, c.Cmd = slices.Clone(c.Env), slices.Clone(c.Entrypoint), slices.Clone(c.Cmd)
	return c
}

// Release lets the image go. It may be called again.
func (l *Lease) Release() {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.released {
		return
	}
	l.released = true
	l.entry.leases--
	l.entry.lastUsed = time.Now()
}

func (l *Lease) held() error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.released {
		return errors.New("image: lease was released before")
	}
	return nil
}

// WriteArchive writes the image as `docker save` does, under the name tag.
func (l *Lease) WriteArchive(ctx context.Context, w io.Writer, tag string) error {
	if err := l.held(); err != nil {
		return err
	}
	e := l.entry
	tw := tar.NewWriter(w)
	saved := savedImage{Config: e.parts.config.digest.Hex + ".json", RepoTags: []string{tag}}
	written := map[string]bool{}
	add := func(name string, size int64, r io.Reader) error {
		if written[name] {
			return nil
		}
		written[name] = true
		if err := tw.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			return fmt.Errorf("write image archive: %w", err)
		}
		if _, err := io.Copy(tw, ctxReader{ctx, r}); err != nil {
			return fmt.Errorf("write image archive: %w", err)
		}
		return nil
	}
	if err := l.addBlob(ctx, e.parts.config, saved.Config, add); err != nil {
		return err
	}
	for _, d := range e.parts.layers {
		name := d.digest.Hex + ".tar"
		if err := l.addBlob(ctx, d, name, add); err != nil {
			return err
		}
		saved.Layers = append(saved.Layers, name)
	}
	manifest, err := json.Marshal([]savedImage{saved})
	if err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	if err := add("manifest.json", int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	return nil
}
