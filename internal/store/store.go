// Package store keeps the daemon's records: sandboxes and snapshots.
//
// It is an index, not the truth: what runs is found by asking the backends,
// and the manager reconciles the two on start. The manager holds all records
// in memory and reads the store only then; afterwards it only writes, before
// each effect. Implementations are held to storetest.
package store

import (
	"context"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Sandbox is the record of one sandbox.
type Sandbox struct {
	flash.Sandbox
	// Handle finds the machine again; nil until the backend has made it.
	Handle *backend.Handle
	// Spec is what the machine was made from, without its image, so that a
	// snapshot of it can be restored.
	Args    []string
	FullEnv []string
	Dir     string
	User    string
	// ImageConfig is the config of the image it was made from.
	ImageConfig backend.ImageConfig
	// Rev is the revision: the store sets it to 1 on insert and adds 1 on each update.
	Rev int64
}

// Snapshot is the record of one snapshot.
type Snapshot struct {
	flash.Snapshot
	Saved   backend.Saved
	Dir     string  // absolute directory that holds it
	Sandbox Sandbox // the source's record at that moment
}

// Store keeps records durably. All methods are safe for concurrent use. What
// a returned call wrote survives a kill -9 of the daemon.
type Store interface {
	// InsertSandbox adds a record and sets s.Rev to 1. An id that is there
	// already is flash.Exists.
	InsertSandbox(ctx context.Context, s *Sandbox) error
	// UpdateSandbox replaces the record of the same id if its revision is
	// still s.Rev, and then adds 1 to s.Rev. Another revision is
	// flash.Conflict, no such record flash.NotFound.
	UpdateSandbox(ctx context.Context, s *Sandbox) error
	// DeleteSandbox removes a record; one that is not there is no error.
	DeleteSandbox(ctx context.Context, id flash.ID) error
	// Sandboxes returns all records, oldest first.
	Sandboxes(ctx context.Context) ([]*Sandbox, error)

	InsertSnapshot(ctx context.Context, s *Snapshot) error
	DeleteSnapshot(ctx context.Context, id flash.ID) error
	Snapshots(ctx context.Context) ([]*Snapshot, error)

	// InsertGrave remembers how a deleted sandbox ended, so that a later
	// request for its id can be told. Old graves are dropped by DropGraves.
	InsertGrave(ctx context.Context, g Grave) error
	Graves(ctx context.Context) ([]Grave, error)
	DropGraves(ctx context.Context, before time.Time) error

	Close() error
}

// Grave is what is remembered of a deleted sandbox.
type Grave struct {
	ID     flash.ID
	At     time.Time
	Reason string // one sentence
}
