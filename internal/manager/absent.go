package manager

import (
	"context"
	"iter"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// errAbsent is what an absent backend answers.
var errAbsent = flash.Errorf(flash.Unavailable, "this daemon was started without this backend").
	WithRemediation("start it with the settings it had when the sandbox was made")

// absent stands for the backend of a record that this daemon wasn't started
// with, so that its sandboxes stay known and wait.
type absent struct{ name string }

func (a absent) Info() backend.Info          { return backend.Info{Name: a.name} }
func (a absent) Probe(context.Context) error { return errAbsent }
func (a absent) Close() error                { return nil }

func (a absent) Create(context.Context, backend.Spec) (backend.Machine, error) {
	return nil, errAbsent
}

func (a absent) Attach(context.Context, backend.Handle) (backend.Machine, error) {
	return nil, errAbsent
}

func (a absent) List(context.Context) iter.Seq2[backend.Handle, error] {
	return func(yield func(backend.Handle, error) bool) { yield(backend.Handle{}, errAbsent) }
}
