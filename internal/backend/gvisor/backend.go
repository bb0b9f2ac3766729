package gvisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/cgroup"
)

// Name is what Info calls this backend.
const Name = "gvisor"

// MinMemory is the least memory limit, in bytes, that a sandbox reliably starts
// and runs a shell with. The sentry and its gofer, which are in the limit,
// take most of that.
const MinMemory = 32 << 20

// DefaultDiskBytes is the default of Config.DiskBytes.
const DefaultDiskBytes = 10 << 30

// Config is what a Backend needs.
type Config struct {
	StateDir string       // absolute directory, this backend's alone; made if missing
	Logger   *slog.Logger // default: discarded
	// DiskBytes bounds what one machine may write into its root file system,
	// in bytes. The data lies below StateDir. 0: DefaultDiskBytes.
	DiskBytes int64
	// DebugDir, when set, gets gVisor's own verbose logs, a file per process.
	DebugDir string

	exe string // for tests: what launchers execute instead of this program
}

// Backend makes machines with gVisor.
type Backend struct {
	cfg    Config
	log    *slog.Logger
	cgroup string // what the names of all machines' cgroups begin with

	netns *os.File // an empty network namespace for gofers

	mu        sync.Mutex
	machines  map[flash.ID]*machine // live ones that this process watches
	leftovers map[flash.ID]*leftover
	probed    bool // a sandbox has started on this host
	closed    bool
	watchers  sync.WaitGroup
	stop      context.CancelFunc
	running   context.Context // until Close
}

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Restorer = (*Backend)(nil)
)

// New returns a backend with its state below cfg.StateDir. It finds machines
// that another process has left there, see Attach and List.
func New(cfg Config) (*Backend, error) {
	if !filepath.IsAbs(cfg.StateDir) {
		return nil, fmt.Errorf("gvisor: state directory %q is not absolute", cfg.StateDir)
	}
	if !reexecable.Load() {
		return nil, errors.New("gvisor: the program does not begin with gvisor.RunIfReexec")
	}
	cfg.StateDir = filepath.Clean(cfg.StateDir)
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.exe == "" {
		cfg.exe = "/proc/self/exe"
	}
	if cfg.DiskBytes == 0 {
		cfg.DiskBytes = DefaultDiskBytes
	}
	b := &Backend{
		cfg: cfg, log: cfg.Logger,
		cgroup:    cgroupPrefix(cfg.StateDir),
		machines:  map[flash.ID]*machine{},
		leftovers: map[flash.ID]*leftover{},
	}
	b.running, b.stop = context.WithCancel(context.Background())
	return b, nil
}

// cgroupPrefix begins the paths of all machines' groups. It differs between
// state directories, as daemons share a host's cgroups. There is no group
// above them, which would stay when a daemon is killed.
func cgroupPrefix(stateDir string) string {
	sum := sha256.Sum256([]byte(stateDir))
	return "/flash-sandbox-" + hex.EncodeToString(sum[:4]) + "-"
}

// Info returns the name and facts.
func (b *Backend) Info() backend.Info {
	return backend.Info{
		Name:      Name,
		Isolation: "userspace-kernel",
		Version:   version(),
		MinMemory: MinMemory,
		Notes: []string{
			"The only network interface inside is the loopback; the network counters count it.",
			"The memory limit holds for all of the sandbox, its own kernel (about 30 MB) included.",
			"A restored sandbox goes on with its main command and the children of that; processes started by exec end in it.",
		},
		Facts:  map[string]string{"platform": platform},
		Sample: (*machine)(nil),
	}
}

// version is that of the gVisor module in this program. It also stands for the
// format of saved states.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknownVersion
	}
	return versionIn(info)
}

// unknownVersion is the version in test binaries, which don't list what they
// are made of.
const unknownVersion = "unknown"

// versionIn is the version in a program with the given build information.
// gVisor's own variable is set only in gVisor's own builds.
func versionIn(info *debug.BuildInfo) string {
	for _, d := range info.Deps {
		if d.Path != "gvisor.dev/gvisor" {
			continue
		}
		for d.Replace != nil {
			d = d.Replace
		}
		if d.Version != "" {
			return d.Version
		}
	}
	return unknownVersion
}

// dir returns a machine's directory.
func (b *Backend) dir(id flash.ID) string { return filepath.Join(b.cfg.StateDir, string(id)) }

// List yields everything below the state directory, and cgroups of machines
// that have no directory any more; but not what Probe uses and cleans itself.
func (b *Backend) List(ctx context.Context) iter.Seq2[backend.Handle, error] {
	return func(yield func(backend.Handle, error) bool) {
		names, err := b.names()
		if err != nil {
			yield(backend.Handle{}, err)
			return
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			if err := ctx.Err(); err != nil {
				yield(backend.Handle{}, err)
				return
			}
			id, err := flash.ParseID(name)
			if err != nil {
				continue // not a machine's
			}
			if !yield(handle(id), nil) {
				return
			}
		}
	}
}

// names returns the names of all cgroups and directories of ours, those in both
// twice.
func (b *Backend) names() (names []string, err error) {
	// Groups before directories, as a machine's group is gone first.
	groups, err := cgroup.Children("/")
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if name, ok := strings.CutPrefix("/"+g, b.cgroup); ok {
			names = append(names, name)
		}
	}
	entries, err := os.ReadDir(b.cfg.StateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// handleVersion is the version of the handles' data, of which there is none:
// the machine's directory has it all.
const handleVersion = 1

func handle(id flash.ID) backend.Handle {
	return backend.Handle{Backend: Name, Version: handleVersion, ID: id}
}

// Attach finds a machine by its handle.
func (b *Backend) Attach(_ context.Context, h backend.Handle) (backend.Machine, error) {
	if h.Backend != Name || h.Version != handleVersion {
		return nil, flash.Errorf(flash.NotFound, "machine %s is not of this backend", h.ID)
	}
	if _, err := flash.ParseID(string(h.ID)); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	if m := b.machines[h.ID]; m != nil {
		return m, nil
	}
	dir := b.dir(h.ID)
	if !exists(dir) {
		if _, err := cgroup.Open(b.cgroupOf(h.ID)); err != nil {
			return nil, flash.Errorf(flash.NotFound, "machine %s does not exist", h.ID)
		}
	}
	r, err := readRecord(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("a machine's record can't be read", "sandbox", h.ID, "err", err)
	}
	m := newMachine(b, h.ID, r)
	b.watch(m, nil)
	return m, nil
}

// errClosed is the error of a backend after Close.
var errClosed = flash.Errorf(flash.Unavailable, "the gVisor backend is closed")

// Close releases what this process holds. Machines go on.
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.watchers.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.netns != nil {
		_ = b.netns.Close()
		b.netns = nil
	}
	return nil
}
