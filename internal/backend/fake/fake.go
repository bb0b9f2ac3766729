// Package fake is a backend whose machines are plain processes of the host. It
// isolates nothing and takes no image apart: it exists so that the manager and
// the transports can be tested against real processes, real output and real
// crashes without root, an engine or a network. It is not for running code
// that isn't trusted.
//
// A machine is a directory below Config.Dir, named after its id, with a
// private scratch directory inside that stands for the machine's root: Spec.Dir
// and ExecSpec.Dir are joined below it, everything else (programs, users,
// /tmp) is the host's. The main command runs below a small shell that outlives
// the process that made it and writes down the exit code, so that Attach from
// another process still learns it.
//
//	b := fake.New(fake.Config{Dir: t.TempDir()})
//	m, err := b.Create(ctx, backend.Spec{ID: "sb-1", Args: []string{"sleep", "60"}, Env: []string{"PATH=/bin"}, Dir: "/"})
//
// Limits: memory, CPU and pids limits are reported and not enforced; an exit
// code above 128 of a main command is taken for a death by signal, as a shell
// shows it; a process that empties its environment and leaves its session and
// its parent is no longer known as the machine's.
package fake

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// ErrCrash is what Config.Fault returns to make the operation end at that
// point with everything done so far left as it is, as if the daemon had died
// there.
var ErrCrash = errors.New("simulated crash")

// Points at which Config.Fault is asked. Those without a colon come before any
// effect.
const (
	OpProbe          = "probe"
	OpCreate         = "create"
	OpCreateDir      = "create:dir"     // the machine's directory exists, nothing runs
	OpCreateStarted  = "create:started" // the main command runs, its pid is not written down
	OpCreateDone     = "create:done"    // everything is done, the caller does not know
	OpRestore        = "restore"        // then the points of create
	OpAttach         = "attach"
	OpList           = "list"
	OpExec           = "exec"
	OpPause          = "pause"
	OpResume         = "resume"
	OpSnapshot       = "snapshot"
	OpSnapshotPaused = "snapshot:paused"
	OpStats          = "stats"
	OpDestroy        = "destroy"
	OpDestroyKilled  = "destroy:killed" // nothing runs, the directory is still there
)

const (
	defaultName   = "fake"
	handleVersion = 1
	stateName     = "machine.json"
	stopDeadline  = 10 * time.Second // for processes to die or to stop once signalled
	exitKilled    = 128 + 9
)

// Config sets up a Backend.
type Config struct {
	// Dir holds the machines; it is created if missing. Commands that run as
	// another user need to be able to reach it. Two Backends on one Dir see
	// the same machines.
	Dir string
	// Name is Info.Name; empty means "fake".
	Name string
	// Fault is asked at the points named by the Op constants, with the machine
	// concerned ("" for probe and list). It may block, which delays the
	// operation, and an error it returns fails the operation, which then cleans
	// up after itself, unless the error is ErrCrash. Nil: no faults.
	Fault func(ctx context.Context, op string, id flash.ID) error
}

// Backend makes machines out of host processes. See the package comment.
type Backend struct {
	cfg Config

	mu  sync.Mutex
	cpu map[flash.ID]*atomic.Int64 // CPU time of execs that have ended, nanoseconds
}

var (
	_ backend.Backend     = (*Backend)(nil)
	_ backend.Restorer    = (*Backend)(nil)
	_ backend.Execer      = (*Machine)(nil)
	_ backend.Pauser      = (*Machine)(nil)
	_ backend.Snapshotter = (*Machine)(nil)
	_ backend.StatsReader = (*Machine)(nil)
)

// New returns a Backend on cfg.Dir. It does no I/O.
func New(cfg Config) *Backend {
	if cfg.Name == "" {
		cfg.Name = defaultName
	}
	return &Backend{cfg: cfg, cpu: map[flash.ID]*atomic.Int64{}}
}

// Info implements backend.Backend.
func (b *Backend) Info() backend.Info {
	return backend.Info{
		Name:       b.cfg.Name,
		Isolation:  "none",
		Notes:      []string{"Machines are plain host processes: nothing is isolated and limits are not enforced."},
		Sample:     (*Machine)(nil),
		SharesHost: true,
	}
}

// Probe implements backend.Backend.
func (b *Backend) Probe(ctx context.Context) error {
	if err := b.fault(ctx, OpProbe, ""); err != nil {
		return err
	}
	if _, err := os.Stat(shell); err != nil {
		return flash.Errorf(flash.Unavailable, "%s is missing", shell)
	}
	if err := os.MkdirAll(b.cfg.Dir, 0o755); err != nil {
		return flash.Errorf(flash.Unavailable, "the directory of the fake backend can't be made: %w", err)
	}
	return nil
}

// Attach implements backend.Backend.
func (b *Backend) Attach(ctx context.Context, h backend.Handle) (backend.Machine, error) {
	if err := b.fault(ctx, OpAttach, h.ID); err != nil {
		return nil, err
	}
	if h.Backend != b.cfg.Name {
		return nil, flash.Errorf(flash.Invalid, "handle: belongs to backend %q, not to %q", h.Backend, b.cfg.Name)
	}
	if _, err := flash.ParseID(string(h.ID)); err != nil {
		return nil, err
	}
	m := b.machine(h.ID)
	if _, err := os.Stat(m.dir); err != nil {
		return nil, flash.SandboxNotFound(h.ID, "the fake backend has no such machine")
	}
	data, err := os.ReadFile(filepath.Join(m.dir, stateName))
	if errors.Is(err, os.ErrNotExist) {
		return m, nil // half-made: ended, and fit to be destroyed
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &m.state); err != nil {
		return nil, err
	}
	return m, nil
}

// List implements backend.Backend.
func (b *Backend) List(ctx context.Context) iter.Seq2[backend.Handle, error] {
	return func(yield func(backend.Handle, error) bool) {
		if err := b.fault(ctx, OpList, ""); err != nil {
			yield(backend.Handle{}, err)
			return
		}
		entries, err := os.ReadDir(b.cfg.Dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			yield(backend.Handle{}, err)
			return
		}
		for _, e := range entries {
			id, err := flash.ParseID(e.Name())
			if err != nil || !e.IsDir() {
				continue
			}
			if !yield(b.machine(id).Handle(), ctx.Err()) {
				return
			}
		}
	}
}

// Close implements backend.Backend. There is nothing to release.
func (b *Backend) Close() error { return nil }

func (b *Backend) machine(id flash.ID) *Machine {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cpu[id] == nil {
		b.cpu[id] = new(atomic.Int64)
	}
	return &Machine{b: b, id: id, dir: filepath.Join(b.cfg.Dir, string(id)), cpu: b.cpu[id]}
}

func (b *Backend) fault(ctx context.Context, op string, id flash.ID) error {
	if b.cfg.Fault != nil {
		if err := b.cfg.Fault(ctx, op, id); err != nil {
			return err
		}
	}
	return ctx.Err()
}
