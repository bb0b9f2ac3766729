package store

import (
	"slices"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// ErrClosed is the error of every call after Close.
func ErrClosed() error {
	return flash.Errorf(flash.Unavailable, "the store is closed: the daemon is shutting down")
}

// ErrExists is the error of an insert whose id is taken. kind is "sandbox" or
// "snapshot".
func ErrExists(kind string, id flash.ID) error {
	return flash.Errorf(flash.Exists, "id: a %s %s exists already", kind, id).
		WithRemediation("Choose another id, or leave it out and get a fresh one.")
}

// ErrConflict is the error of an update of revision had, when the record is
// at revision now.
func ErrConflict(id flash.ID, had, now int64) error {
	return flash.Errorf(flash.Conflict, "sandbox %s has been changed meanwhile: revision %d was expected, it is at %d", id, had, now).
		WithRemediation("Read the sandbox again and repeat the request.")
}

// SortSandboxes orders records oldest first; equal ones keep their order.
func SortSandboxes(s []*Sandbox) {
	slices.SortStableFunc(s, func(a, b *Sandbox) int { return a.CreatedAt.Compare(b.CreatedAt) })
}

// SortSnapshots orders records oldest first; equal ones keep their order.
func SortSnapshots(s []*Snapshot) {
	slices.SortStableFunc(s, func(a, b *Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
}
