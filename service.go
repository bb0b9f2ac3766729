package flash

import "context"

// Sandboxes is what both published wires (HTTP and gRPC) can say about
// sandboxes. All methods are safe for concurrent use. An id that no sandbox
// has gives [NotFound]; a state that forbids the act gives [Conflict] with a
// remediation. Every error is, or wraps, an *[Error].
type Sandboxes interface {
	// Create makes a sandbox and returns once it takes commands. On error
	// nothing is left behind. When ctx ends first, the sandbox is removed.
	Create(ctx context.Context, o CreateOptions) (*Sandbox, error)
	// Get returns the sandbox, Stopped and Failed ones included.
	Get(ctx context.Context, id ID) (*Sandbox, error)
	// Delete removes a sandbox in any state and everything of it. Deleting
	// it again is NotFound. With Keep it is only paused.
	Delete(ctx context.Context, id ID, o DeleteOptions) error
	// Exec runs a command to its end. When ctx ends first, the command is
	// killed and the error is Canceled or Timeout.
	Exec(ctx context.Context, id ID, o ExecOptions) (*ExecResult, error)
	// RunPython runs code in a fresh interpreter of the image: python3, else
	// python. An image with neither gives Unsupported.
	RunPython(ctx context.Context, id ID, o PythonOptions) (*ExecResult, error)
	// PlatformInfo describes the sandbox from inside.
	PlatformInfo(ctx context.Context, id ID) (*PlatformInfo, error)
	// Metrics reads resource use. A stopped sandbox gives Conflict.
	Metrics(ctx context.Context, id ID) (*Metrics, error)
	// Snapshot saves file system and, where the backend can, memory, in one
	// consistent state, and leaves the sandbox Paused.
	Snapshot(ctx context.Context, id ID) (*Snapshot, error)
	// Resume wakes a Paused sandbox. Resuming a Running one does nothing.
	Resume(ctx context.Context, id ID) error
}

// Service is everything users can do. The manager implements it, the REST
// client does over the network, and servicetest holds both to it.
type Service interface {
	Sandboxes

	// List returns all sandboxes, oldest first.
	List(ctx context.Context) ([]*Sandbox, error)
	// Snapshots returns all snapshots, oldest first.
	Snapshots(ctx context.Context) ([]*Snapshot, error)
	// DeleteSnapshot removes a snapshot. Sandboxes made from it live on.
	DeleteSnapshot(ctx context.Context, id ID) error
	// Images returns cached images and pulls under way.
	Images(ctx context.Context) ([]Image, error)
	// Backends returns every backend this daemon was built with, best first.
	Backends(ctx context.Context) ([]BackendStatus, error)
}
