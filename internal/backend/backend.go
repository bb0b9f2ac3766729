// Package backend is the lower waist of the house: what a technology that
// isolates sandboxes (gVisor, Docker, ...) must do, and what it may do besides.
//
// Vocabulary. A Backend makes machines on this host. A Machine is the isolated
// thing one sandbox runs in; its main command is the process that Spec.Args
// names, and the machine has ended when that process has. A Handle is the
// plain value by which a machine is found again by another process.
//
// Contract of calls.
//
//   - Info may be called at any time; Probe before the first Create, again
//     later to see whether the backend has come back. All methods are safe for
//     concurrent use.
//   - Create either returns a machine that runs or leaves nothing behind,
//     also when its context ends on the way. What a crash leaves between the
//     two is what List is for.
//   - Machines outlive the process that made them. Close releases only what
//     this process holds; Attach finds a machine again, in this or another
//     process, by the handle alone.
//   - Destroy is complete (processes, mounts, cgroups, files), idempotent and
//     safe to repeat after a crash. It kills at once.
//   - Errors that users can act on are *flash.Error. Everything else counts as
//     internal and is only logged.
//   - Every call that may block on something outside (an engine, a control
//     socket) has a deadline of its own, so that a hung engine never holds a
//     caller for ever.
//
// Capabilities are optional interfaces on the value that owns the act:
// [Execer], [Pauser], [Snapshotter], [StatsReader] on a Machine, [Restorer] and
// [ImageFinder] on a Backend. Having the method is the claim, and backendtest
// is the proof. No method returns "not implemented". A backend whose Probe
// finds that this host lacks something masks the capability, see [Masker].
package backend

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// Backend makes machines on this host.
type Backend interface {
	// Info returns the name and facts, without I/O. What Probe has found out
	// (version, notes) is in it from then on.
	Info() Info
	// Probe says whether this host can run the backend now. The error is
	// flash.Unavailable and its message a sentence that says what is missing.
	Probe(ctx context.Context) error
	// Create makes a machine and returns once its main command has started. A
	// command that can't be started is a flash.Invalid error that names it, an
	// id that a machine here has already flash.Exists.
	Create(ctx context.Context, s Spec) (Machine, error)
	// Attach finds a machine again. One that no longer exists is
	// flash.NotFound; one that has ended is returned, and its Wait tells how.
	Attach(ctx context.Context, h Handle) (Machine, error)
	// List yields a handle for everything of ours on this host, half-made
	// machines included, whoever made it. Their Data need only be enough for
	// Attach followed by Destroy.
	List(ctx context.Context) iter.Seq2[Handle, error]
	// Close releases what this process holds and leaves machines running.
	Close() error
}

// Machine is one isolated machine.
type Machine interface {
	Handle() Handle
	// Status reads the machine's real state.
	Status(ctx context.Context) (Status, error)
	// Wait blocks until the main command has ended, by whatever cause, and
	// says how. It may be called by several goroutines and after the end.
	// The error is only ever the context's.
	Wait(ctx context.Context) (flash.Ending, error)
	// Destroy kills and removes everything of the machine.
	Destroy(ctx context.Context) error
}

// Status is a machine's real state.
type Status string

// The statuses.
const (
	StatusRunning Status = "running"
	StatusPaused  Status = "paused"
	StatusEnded   Status = "ended"
)

// Info is what a backend says of itself.
type Info struct {
	Name      string            // "gvisor", "docker", "docker/runsc"
	Isolation string            // "userspace-kernel", "container", "microvm" or "none"
	Version   string            // of the engine, once known
	Notes     []string          // limits worth knowing, a sentence each; shown by GET /backends
	Facts     map[string]string // anything else worth showing
	MinMemory int64             // smallest Spec.MemoryBytes a machine can live with; 0: any
	// Sample is a nil pointer of the backend's machine type. Its method set
	// says which machine capabilities the backend has.
	Sample Machine
	// SharesHost is true where machines are not isolated at all (fake): the
	// conformance suite then leaves out isolation, limits and image contents.
	SharesHost bool
}

// Spec asks for a machine. The manager has resolved everything that depends on
// the image, so that it is the same on every backend.
type Spec struct {
	ID          flash.ID
	Image       Image
	Args        []string // whole argument vector: entrypoint and command. Never empty
	Env         []string // whole environment, "NAME=value", PATH included
	Dir         string   // absolute working directory; created if missing
	User        string   // as an image config spells it: "", "name", "uid", "uid:gid", "name:group"
	Hostname    string
	MemoryBytes int64   // hard limit on the host memory the machine takes; 0: unbounded
	CPUs        float64 // hard limit in cores; 0: unbounded
	Pids        int64   // most processes and threads inside; 0: unbounded
}

// Handle finds a machine again. It is plain data, persisted by the manager.
type Handle struct {
	Backend string          `json:"backend"`
	Version int             `json:"version"` // of Data's format
	ID      flash.ID        `json:"id"`      // the sandbox
	Data    json.RawMessage `json:"data,omitempty"`
}

// Image is an image ready for use, held for as long as the call it is handed
// to, and by the manager for as long as the machine lives.
type Image interface {
	Reference() string // as the user wrote it
	Digest() string    // manifest digest, "sha256:..."; for an engine's own images their id
	Config() ImageConfig
}

// RootfsImage can be had as a directory.
type RootfsImage interface {
	Image
	// Rootfs returns an absolute directory with the image's root file system,
	// unpacked once and shared: nothing may write to it.
	Rootfs(ctx context.Context) (string, error)
}

// ArchiveImage can be had as an archive for an engine that keeps its own images.
type ArchiveImage interface {
	Image
	// ConfigDigest is the digest of the config blob, which is what the Docker
	// engine calls the image id.
	ConfigDigest() string
	// WriteArchive writes the image as `docker save` would, tagged tag.
	WriteArchive(ctx context.Context, w io.Writer, tag string) error
}

// ImageConfig is the part of an image's config that sandboxes honour.
type ImageConfig struct {
	Env        []string
	WorkingDir string
	User       string
	Entrypoint []string
	Cmd        []string
}

// Execer starts processes inside a machine.
type Execer interface {
	// Exec starts a process. A program that is missing or can't be executed
	// is a *StartError; a paused machine flash.Conflict; an ended one
	// flash.Conflict too.
	Exec(ctx context.Context, s ExecSpec) (Process, error)
}

// ExecSpec asks for a process inside a machine.
type ExecSpec struct {
	Args   []string // argument vector; Args[0] is looked up in the machine's PATH
	Env    []string // added to, and stronger than, the machine's Spec.Env
	Dir    string   // "": the machine's Spec.Dir
	User   string   // "": the machine's Spec.User
	Stdin  io.Reader
	Stdout io.Writer // a write that blocks holds the process up; nil: discarded
	Stderr io.Writer
}

// Process is a process started by Exec.
type Process interface {
	// Wait blocks until the process has ended and all it wrote before its end
	// has been handed to Stdout and Stderr. Output of children that live on
	// and still hold the streams is not waited for longer than a moment. An
	// error is the context's, and the process goes on.
	Wait(ctx context.Context) (flash.Ending, error)
	// Kill kills the process and, as far as the backend can tell them, its
	// descendants. Killing an ended process is no error.
	Kill(ctx context.Context) error
}

// StartError says that a program could not be started in a machine that is
// otherwise fine. The manager turns it into a result with that exit code and
// the message on stderr, as a shell would.
type StartError struct {
	ExitCode int    // 127: not found, 126: not executable, or a directory
	Message  string // such as "no-such-program: not found"
}

func (e *StartError) Error() string { return e.Message }

// Pauser freezes a machine and wakes it. Both are idempotent.
type Pauser interface {
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
}

// Snapshotter saves a machine's state.
type Snapshotter interface {
	// Snapshot saves a consistent state into dir, an existing empty directory
	// of its own, and leaves the machine paused, whether or not it was before.
	// On error the machine is as it was, dir's content is the caller's to
	// remove, and nothing is left elsewhere.
	Snapshot(ctx context.Context, dir string) (Saved, error)
}

// Saved describes a saved state.
type Saved struct {
	StateFile string          // name below dir of the file that stands for the snapshot
	MemFile   string          // name below dir of the memory file, "" if none
	Memory    bool            // whether memory and processes are in it
	Detail    string          // one sentence for users: what is in it and what is not
	Data      json.RawMessage // what Restore needs besides; persisted
}

// Restorer makes machines from saved states of the same backend.
type Restorer interface {
	// Restore is Create from a state that Snapshot saved in dir. Spec.Image is
	// the image of the machine that was saved, and Args, Env, Dir and User are
	// that machine's unless the state holds no memory and the caller gave others.
	Restore(ctx context.Context, s Spec, dir string, v Saved) (Machine, error)
	// Discard removes what Snapshot keeps outside dir. It is idempotent. After
	// a crash in the middle of Snapshot, v is the zero value, and dir, the
	// folder Snapshot was given, is all there is to find it by.
	Discard(ctx context.Context, dir string, v Saved) error
}

// ImageFinder is a backend with an image store of its own.
type ImageFinder interface {
	// FindImage looks for a reference in the backend's own store, without
	// pulling. It is ok=false when there is none.
	FindImage(ctx context.Context, ref string) (img Image, ok bool, err error)
}

// Stats is a reading of counters.
type Stats struct {
	At               time.Time
	CPU              time.Duration // CPU time used so far
	MemoryUsageBytes uint64        // working set: without reclaimable page cache
	MemoryLimitBytes uint64
	Pids             uint64
	NetRxBytes       uint64
	NetTxBytes       uint64
	BlockReadBytes   uint64
	BlockWriteBytes  uint64
}

// StatsReader reads a machine's counters, cheaply enough to be asked each second.
type StatsReader interface {
	Stats(ctx context.Context) (Stats, error)
}

// Masker is a backend that found at Probe that this host lacks what a
// capability of its type needs.
type Masker interface {
	// Masked returns names of capabilities that don't count here.
	Masked() []string
}
