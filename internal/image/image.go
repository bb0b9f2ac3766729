// Package image gets container images and keeps them: from a reference that a
// user wrote to a directory with the image's root file system, or to an archive
// for an engine with an image store of its own.
//
// A [Store] is a cache on the disk, shared by all sandboxes of a daemon. Images
// come from registries (through mirrors, where configured) or from files below
// directories that the operator named. What is used is held by a [Lease]; what
// nobody holds may be evicted, least recently used first, when the disk budget
// is spent. The package does not run anything and knows nothing of sandboxes.
//
//	store, err := image.Open(image.Config{Dir: "/var/lib/fsb/images"})
//	lease, err := store.Acquire(ctx, "alpine:latest")
//	defer lease.Release()
//	dir, err := lease.Rootfs(ctx)
//
// After a restart of the daemon, call [Store.AcquireDigest] for the image of
// each sandbox that lives on before the first Acquire: until then nothing but
// the cache's own good will keeps them.
//
// On the disk, below Config.Dir (mode 0700, so that setuid files in images are
// out of reach of other users of the host):
//
//	blobs/sha256/HEX  manifests, configs and compressed layers
//	rootfs/HEX        unpacked images, by manifest digest
//	index.json        which images are complete, and under which names
//	tmp, trash        work in progress; emptied by Open
package image

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/sys/unix"
)

// Config says where a store lives and where images may come from.
type Config struct {
	Dir        string // absolute; made if missing
	DiskBudget int64  // bytes for blobs and unpacked trees together; 0: unlimited

	// Mirrors lists, for a registry's host ("docker.io"), base URLs to ask
	// before it, in order; see ParseMirrors.
	Mirrors map[string][]string
	// InsecureRegistries lists hosts that may be spoken to without TLS, on all
	// ports ("reg.lan") or on one ("reg.lan:5000"). Loopback addresses always may.
	InsecureRegistries []string
	// ImageDirs lists directories that oci:, oci-archive: and docker-archive:
	// references may point into. None: such references are refused.
	ImageDirs []string

	TagTTL       time.Duration // how long a tag is believed before its registry is asked again; 0: 5 minutes
	StallTimeout time.Duration // a download that brings nothing for so long has failed; 0: 60 seconds
	Downloads    int           // layers downloaded at a time; 0: 6

	MaxEntries int64 // files in one image; 0: 2 Mi
	MaxBytes   int64 // bytes in the files of one image; 0: 64 GiB

	Keychain authn.Keychain // credentials; nil: Docker's config file and its helpers
	Logger   *slog.Logger   // nil: discards
}

// Store is a cache of images. Its methods are safe for concurrent use.
type Store struct {
	cfg       Config
	log       *slog.Logger
	transport *http.Transport
	insecure  map[string]bool
	mirrors   map[string][]mirror
	slots     chan struct{} // one for each download at a time

	lock    *os.File // held for as long as the store is open
	ctx     context.Context
	cancel  context.CancelFunc
	flights flights

	saveMu sync.Mutex // orders writes of the index

	mu       sync.Mutex // guards what follows; never held during I/O that may take long
	images   map[string]*entry
	tags     map[string]*tag
	blobs    map[string]int64 // sizes of the blobs on the disk
	pinned   map[string]int   // blobs that a pull under way counts on
	pulls    map[string]*pull
	failed   map[string]failure
	used     int64 // bytes on the disk
	reserved int64 // bytes promised to pulls and unpackings under way
	closed   bool
}

// Open opens the store in cfg.Dir and clears what a crash has left there.
func Open(cfg Config) (*Store, error) {
	if !filepath.IsAbs(cfg.Dir) {
		return nil, fmt.Errorf("image: directory %q is not absolute", cfg.Dir)
	}
	cfg.TagTTL = cmp.Or(cfg.TagTTL, 5*time.Minute)
	cfg.StallTimeout = cmp.Or(cfg.StallTimeout, time.Minute)
	cfg.Downloads = cmp.Or(cfg.Downloads, 6)
	if cfg.Keychain == nil {
		cfg.Keychain = authn.DefaultKeychain
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for _, dir := range cfg.ImageDirs {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("image: image directory %q is not absolute", dir)
		}
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, transport: newTransport(), slots: make(chan struct{}, cfg.Downloads),
		insecure: map[string]bool{},
		images:   map[string]*entry{}, tags: map[string]*tag{}, blobs: map[string]int64{}, pinned: map[string]int{},
		pulls: map[string]*pull{}, failed: map[string]failure{},
	}
	for _, host := range cfg.InsecureRegistries {
		s.insecure[host] = true
	}
	var err error
	if s.mirrors, err = parseMirrorURLs(cfg.Mirrors, s.mayUseHTTP); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.Dir, s.path("blobs", "sha256"), s.path("rootfs"), s.path("tmp"), s.path("trash")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, diskError(err)
		}
	}
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		_ = s.lock.Close()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.flights.base = s.ctx
	return s, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, diskError(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, flash.Errorf(flash.Conflict, "image directory %s is in use by another process", dir).WithCause(err)
	}
	return f, nil
}

// Close cancels pulls under way and writes down what is cached. Leases stay
// valid as values, and what they hold stays on the disk.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.flights.wait()
	s.transport.CloseIdleConnections()
	err := s.settle()
	if cerr := s.lock.Close(); err == nil {
		err = cerr
	}
	return err
}

// path joins names to the store's directory.
func (s *Store) path(names ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, names...)...)
}
