package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// entry is a complete image in the cache. Digest, parts, config and diffIDs
// never change; the rest is guarded by Store.mu.
type entry struct {
	digest      v1.Hash
	parts       resolved
	config      backend.ImageConfig
	diffIDs     []v1.Hash
	names       map[string]bool // keys of tags that it has, or had last
	unpacked    bool            // whether rootfs/HEX is complete
	unpacking   bool
	rootfsBytes int64
	leases      int // held by users
	busy        int // held by work of the store's own
	lastUsed    time.Time
}

// tag is what a reference meant when it was last looked up.
type tag struct {
	digest      v1.Hash // of the manifest for this platform
	root        v1.Hash // of what the reference names: an index, or the same
	checked     time.Time
	fingerprint string // of files
	fixed       bool   // by digest: never looked up again
}

// The index as it stands on the disk.
type (
	indexFile struct {
		Version int                   `json:"version"`
		Boot    string                `json:"boot"`    // of the host when it was written
		Settled bool                  `json:"settled"` // whether all it lists was on the disk by then
		Images  map[string]indexImage `json:"images"`  // by digest
		Tags    map[string]indexTag   `json:"tags"`    // by key
	}
	indexImage struct {
		RootfsBytes int64     `json:"rootfs_bytes,omitempty"` // 0: not unpacked
		LastUsed    time.Time `json:"last_used"`
		Names       []string  `json:"names,omitempty"`
	}
	indexTag struct {
		Digest      string    `json:"digest"`
		Root        string    `json:"root"`
		Checked     time.Time `json:"checked"`
		Fingerprint string    `json:"fingerprint,omitempty"`
		Fixed       bool      `json:"fixed,omitempty"`
	}
)

const indexVersion = 1

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// save writes the index, by rename, so that a crash leaves the old one or the new.
func (s *Store) save(settled bool) error {
	s.saveMu.Lock()
	defer s.saveMu.Unlock()
	file := indexFile{Version: indexVersion, Boot: bootID(), Settled: settled, Images: map[string]indexImage{}, Tags: map[string]indexTag{}}
	s.mu.Lock()
	for h, e := range s.images {
		img := indexImage{LastUsed: e.lastUsed}
		if e.unpacked {
			img.RootfsBytes = max(e.rootfsBytes, 1)
		}
		for name := range e.names {
			img.Names = append(img.Names, name)
		}
		file.Images[h] = img
	}
	for key, t := range s.tags {
		file.Tags[key] = indexTag{
			Digest: t.digest.String(), Root: t.root.String(), Checked: t.checked, Fingerprint: t.fingerprint, Fixed: t.fixed,
		}
	}
	s.mu.Unlock()
	data, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		return fmt.Errorf("write image index: %w", err)
	}
	tmp := s.path("index.json.new")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return diskError(err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, s.path("index.json"))
	}
	return diskError(err)
}

// settle writes everything to the disk, so that unpacked trees are still
// trusted after the host has been restarted.
func (s *Store) settle() error {
	dir, err := os.Open(s.cfg.Dir)
	if err != nil {
		return diskError(err)
	}
	defer func() { _ = dir.Close() }()
	settled := unix.Syncfs(int(dir.Fd())) == nil
	return s.save(settled)
}

// load reads the index, drops what is incomplete, and removes what it does not list.
func (s *Store) load() error {
	for _, dir := range []string{"tmp", "trash"} {
		if err := emptyDir(s.path(dir)); err != nil {
			return diskError(err)
		}
	}
	var file indexFile
	data, err := os.ReadFile(s.path("index.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return diskError(err)
	default:
		if err := json.Unmarshal(data, &file); err != nil || file.Version != indexVersion {
			return flash.Errorf(flash.Internal, "image index %s can't be read", s.path("index.json")).WithCause(err).
				WithRemediation("remove the directory %s while no sandbox runs; images are then pulled anew", s.cfg.Dir)
		}
	}
	if err := s.scanBlobs(); err != nil {
		return err
	}
	// After a crash of the host, trees may hold files whose contents never
	// reached the disk. Blobs have digests to tell.
	trusted := file.Settled || file.Boot == bootID()
	for digest, img := range file.Images {
		e, err := s.loadEntry(digest, img, trusted)
		if err != nil {
			s.log.Warn("dropped an incomplete image from the cache", "digest", digest, "err", err)
			continue
		}
		s.images[digest] = e
	}
	for key, t := range file.Tags {
		e := s.images[t.Digest]
		root, err := v1.NewHash(t.Root)
		if e == nil || err != nil {
			continue
		}
		s.tags[key] = &tag{digest: e.digest, root: root, checked: t.Checked, fingerprint: t.Fingerprint, fixed: t.Fixed}
	}
	return s.dropUnlisted()
}

// scanBlobs notes which blobs are there.
func (s *Store) scanBlobs() error {
	list, err := os.ReadDir(s.path("blobs", "sha256"))
	if err != nil {
		return diskError(err)
	}
	for _, d := range list {
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			s.blobs["sha256:"+d.Name()] = fi.Size()
		}
	}
	return nil
}

// loadEntry rebuilds an image from its blobs.
func (s *Store) loadEntry(digest string, img indexImage, trusted bool) (*entry, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	raw, err := s.readBlob(h)
	if err != nil {
		return nil, err
	}
	r := resolved{root: h, digest: h, manifest: raw}
	if err := r.parse(); err != nil {
		return nil, err
	}
	for _, d := range append([]descriptor{r.config}, r.layers...) {
		if size, ok := s.blobs[d.digest.String()]; !ok || size != d.size {
			return nil, fmt.Errorf("blob %s is missing or of the wrong size", d.digest)
		}
	}
	e, err := s.newEntry(r)
	if err != nil {
		return nil, err
	}
	e.lastUsed = img.LastUsed
	for _, n := range img.Names {
		e.names[n] = true
	}
	if img.RootfsBytes > 0 && trusted {
		if fi, err := os.Lstat(s.path("rootfs", h.Hex)); err == nil && fi.IsDir() {
			e.unpacked, e.rootfsBytes = true, img.RootfsBytes
		}
	}
	return e, nil
}

// newEntry makes an entry of an image whose blobs are all there.
func (s *Store) newEntry(r resolved) (*entry, error) {
	raw, err := s.readBlob(r.config.digest)
	if err != nil {
		return nil, err
	}
	cfg, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, broken("its config is malformed").WithCause(err)
	}
	if err := checkConfig(cfg, len(r.layers)); err != nil {
		return nil, err
	}
	return &entry{
		digest: r.digest, parts: r, diffIDs: cfg.RootFS.DiffIDs, names: map[string]bool{},
		config: backend.ImageConfig{
			Env: cfg.Config.Env, WorkingDir: cfg.Config.WorkingDir, User: cfg.Config.User,
			Entrypoint: cfg.Config.Entrypoint, Cmd: cfg.Config.Cmd,
		},
	}, nil
}

// readBlob reads a small blob and checks its digest.
func (s *Store) readBlob(h v1.Hash) ([]byte, error) {
	f, err := os.Open(s.blobPath(h))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := limited(f, maxConfigBytes)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", h, err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != h.Hex {
		return nil, fmt.Errorf("blob %s has another digest", h)
	}
	return data, nil
}

func (s *Store) blobPath(h v1.Hash) string { return s.path("blobs", h.Algorithm, h.Hex) }

// dropUnlisted removes blobs and trees that belong to no image, and counts the rest.
func (s *Store) dropUnlisted() error {
	keep := map[string]bool{}
	for _, e := range s.images {
		for _, h := range e.blobs() {
			keep[h.String()] = true
		}
		if e.unpacked {
			s.used += e.rootfsBytes
		}
	}
	for name, size := range s.blobs {
		if keep[name] {
			s.used += size
			continue
		}
		if err := os.Remove(s.path("blobs", "sha256", strings.TrimPrefix(name, "sha256:"))); err != nil {
			return diskError(err)
		}
		delete(s.blobs, name)
	}
	list, err := os.ReadDir(s.path("rootfs"))
	if err != nil {
		return diskError(err)
	}
	for _, d := range list {
		if e := s.images["sha256:"+d.Name()]; e != nil && e.unpacked {
			continue
		}
		if err := os.RemoveAll(s.path("rootfs", d.Name())); err != nil {
			return diskError(err)
		}
	}
	return nil
}

// blobs returns the digests of everything that the image is made of.
func (e *entry) blobs() []v1.Hash {
	out := []v1.Hash{e.digest, e.parts.config.digest}
	for _, l := range e.parts.layers {
		out = append(out, l.digest)
	}
	return out
}

func emptyDir(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := os.RemoveAll(filepath.Join(dir, d.Name())); err != nil {
			return err
		}
	}
	return nil
}
