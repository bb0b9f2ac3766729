package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// The exit codes, besides those of remote commands.
const (
	exitRefused     = 2 // wrong usage, or the daemon refused
	exitNoAnswer    = 3 // no connection, or no answer in time
	exitNotFound    = 4
	exitInterrupted = 130
)

// usagef returns an error about the command line. Like cobra's own, it is told
// from the daemon's errors by not being a *flash.Error.
func usagef(format string, args ...any) error { return fmt.Errorf(format, args...) }

// dashHint is for commands that end in another command.
func dashHint(_ *cobra.Command, err error) error {
	return fmt.Errorf("%w; put -- in front of the command to run", err)
}

// fail reports err and returns the exit code.
func (a *app) fail(ctx context.Context, cmd *cobra.Command, err error) int {
	var e *flash.Error
	var file *fs.PathError
	switch {
	case errors.As(err, &file): // the output can't be written
		_, _ = fmt.Fprintf(a.Stderr, "error: %v\n", err)
		return exitRefused
	case !errors.As(err, &e):
		_, _ = fmt.Fprintf(a.Stderr, "error: %v\nSee: %s --help\n", err, cmd.CommandPath())
		return exitRefused
	}
	if ctx.Err() != nil && errors.Is(e, flash.Canceled) {
		_, _ = fmt.Fprintln(a.Stderr, "interrupted")
		return exitInterrupted
	}
	_, _ = fmt.Fprintf(a.Stderr, "error: %s\n", e.Message)
	if e.Remediation != "" {
		_, _ = fmt.Fprintf(a.Stderr, "  %s\n", e.Remediation)
	}
	switch {
	case e.Reason == "connection_failed", e.Reason == "connection_lost", e.Code == flash.Timeout:
		return exitNoAnswer
	case e.Code == flash.NotFound:
		return exitNotFound
	}
	return exitRefused
}
