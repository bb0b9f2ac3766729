package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func (a *app) execCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec ID -- COMMAND...",
		Short: "Run a command in a sandbox",
		Long: `Run a command in a sandbox, print what it wrote once it has ended, and exit
with its exit code. With --timeout it is killed after that time.`,
		Example: `  fsb exec sb-k3vp... -- ls -l /
  fsb exec sb-k3vp... -- sh -c 'echo $HOME'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			before, command, err := split(cmd, args, true)
			if err != nil {
				return err
			}
			if len(before) == 0 || len(command) == 0 {
				return usagef("give an id and a command: fsb exec ID -- COMMAND")
			}
			svc, err := a.service()
			if err != nil {
				return err
			}
			return a.exec(cmd.Context(), svc, flash.ID(before[0]), command)
		},
	}
	cmd.SetFlagErrorFunc(dashHint)
	return cmd
}

// execView is the result of a command as --json prints it.
type execView struct {
	Stdout        string      `json:"stdout"`
	Stderr        string      `json:"stderr"`
	ExitCode      int         `json:"exit_code"`
	Cause         flash.Cause `json:"cause,omitempty"`
	Message       string      `json:"message,omitempty"`
	StdoutDropped int64       `json:"stdout_dropped,omitempty"`
	StderrDropped int64       `json:"stderr_dropped,omitempty"`
}

// exec runs a command, prints its output and takes over its exit code.
func (a *app) exec(ctx context.Context, svc flash.Service, id flash.ID, command []string) error {
	o := flash.ExecOptions{Command: command, Timeout: time.Duration(a.timeout)}
	if o.Timeout > 0 {
		// The daemon kills the command at its deadline and still says what it
		// wrote, so the request may take a little longer.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout+10*time.Second)
		defer cancel()
	}
	r, err := svc.Exec(ctx, id, o)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(execView{
			Stdout: string(r.Stdout), Stderr: string(r.Stderr), ExitCode: r.Ending.ExitCode, Cause: r.Ending.Cause,
			Message: r.Ending.Message, StdoutDropped: r.StdoutDropped, StderrDropped: r.StderrDropped,
		})
	} else {
		_, err = a.Stdout.Write(r.Stdout)
		if _, err2 := a.Stderr.Write(r.Stderr); err == nil {
			err = err2
		}
	}
	if err != nil {
		return fmt.Errorf("the output can't be written: %w", err)
	}
	a.code = exitCode(r.Ending)
	if note := endingNote(r.Ending); note != "" {
		_, _ = fmt.Fprintf(a.Stderr, "fsb: %s\n", note)
	}
	return nil
}

// exitCode is the code fsb ends with: the command's own, unless it has none.
func exitCode(e flash.Ending) int {
	switch {
	case e.Cause == flash.CauseTimeout:
		return exitNoAnswer
	case e.ExitCode < 0 || e.ExitCode > 255:
		return 255
	}
	return e.ExitCode
}

// endingNote says what an exit code alone does not.
func endingNote(e flash.Ending) string {
	switch e.Cause {
	case "", flash.CauseExited:
		return ""
	case flash.CauseTimeout:
		return "the command was killed at its deadline"
	}
	if e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("the command ended by %s", e.Cause)
}
