package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// createFlags are the options of commands that make a sandbox.
type createFlags struct {
	backend, image string
	memory         int64
	cpu            float64
	env            []string
}

func (f *createFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.backend, "backend", "b", "", "backend, such as gvisor or docker (default: the best one available)")
	cmd.Flags().StringVarP(&f.image, "image", "i", "", "image, instead of the first argument")
	cmd.Flags().Int64VarP(&f.memory, "memory", "m", 0, "memory limit in MiB (default: the daemon's)")
	cmd.Flags().Float64Var(&f.cpu, "cpu", 0, "CPU limit in cores (default: none)")
	cmd.Flags().StringArrayVarP(&f.env, "env", "e", nil, "environment variable as NAME=VALUE, or NAME to pass on one's own")
}

// options builds the request from the flags and the arguments left of the dash.
func (f *createFlags) options(a *app, before, command []string) (flash.CreateOptions, error) {
	o := flash.CreateOptions{Type: f.backend, Image: f.image, Command: command, MemoryMB: f.memory, CPUCores: f.cpu}
	switch {
	case len(before) == 1 && f.image == "":
		o.Image = before[0]
	case len(before) > 0 && f.image != "":
		return o, usagef("the image is given twice, as %q and with --image %q", before[0], f.image)
	}
	for _, kv := range f.env {
		name, value, ok := strings.Cut(kv, "=")
		if name == "" {
			return o, usagef("--env %q: give NAME=VALUE or NAME", kv)
		}
		if !ok {
			value = a.Get(name)
		}
		if o.Env == nil {
			o.Env = make(map[string]string)
		}
		o.Env[name] = value
	}
	return o, nil
}

// split parts arguments into one in front and the command: at the dash, else
// after the first.
func split(cmd *cobra.Command, args []string, first bool) (before, command []string, err error) {
	at := cmd.ArgsLenAtDash()
	if at < 0 {
		at = min(1, len(args))
		if !first {
			at = 0
		}
	}
	if at > 1 {
		return nil, nil, usagef("unexpected argument %q in front of --", args[1])
	}
	return args[:at], args[at:], nil
}

func (a *app) createCommand() *cobra.Command {
	var f createFlags
	var snapshot, id string
	cmd := &cobra.Command{
		Use:   "create IMAGE [-- COMMAND...]",
		Short: "Create a sandbox and print its id",
		Long: `Create a sandbox and print its id. It runs until its command ends or it is
stopped. Without a command it runs the image's own.`,
		Example: `  fsb create alpine:latest -- sleep 600
  fsb create python:3.13 -m 1024 --cpu 2 -e DEBUG=1 -- sleep infinity
  fsb create --snapshot sn-k3vp...`,
		RunE: func(cmd *cobra.Command, args []string) error {
			before, command, err := split(cmd, args, f.image == "" && snapshot == "")
			if err != nil {
				return err
			}
			o, err := f.options(a, before, command)
			if err != nil {
				return err
			}
			o.ID = flash.ID(id)
			svc, err := a.service()
			if err != nil {
				return err
			}
			ctx, cancel := a.long(cmd.Context())
			defer cancel()
			if snapshot != "" {
				if err := fromSnapshot(ctx, svc, flash.ID(snapshot), &o); err != nil {
					return err
				}
			} else if o.Image == "" {
				return usagef("give an image, or --snapshot")
			}
			sb, err := svc.Create(ctx, o)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(viewOf(sb))
			}
			_, err = fmt.Fprintln(a.Stdout, sb.ID)
			return err
		},
	}
	f.register(cmd)
	cmd.SetFlagErrorFunc(dashHint)
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "id of the snapshot to restore")
	cmd.Flags().StringVar(&id, "id", "", "id of the new sandbox (default: a fresh one)")
	return cmd
}

// fromSnapshot fills in what names the snapshot in a create request.
func fromSnapshot(ctx context.Context, svc flash.Service, id flash.ID, o *flash.CreateOptions) error {
	all, err := svc.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.ID == id {
			o.SnapshotPath, o.MemFilePath = s.SnapshotPath, s.MemFilePath
			if o.Type == "" {
				o.Type = s.Backend
			}
			return nil
		}
	}
	return flash.Errorf(flash.NotFound, "snapshot %q does not exist", id).WithRemediation("fsb snapshots lists them.")
}

// keeper holds a sandbox open while run uses it: the image's own command may
// be a shell, which ends at once without input.
var keeper = []string{"tail", "-f", "/dev/null"}

func (a *app) runCommand() *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "run IMAGE -- COMMAND...",
		Short: "Run one command in a fresh sandbox and remove it",
		Long: `Run one command in a fresh sandbox, print what it wrote, remove the sandbox and
exit with the command's exit code. The sandbox is removed as well when fsb is
interrupted. The image must hold the program tail, which keeps the sandbox open.`,
		Example: `  fsb run alpine:latest -- echo hello
  fsb run python:3.13 -m 1024 -- python3 -c 'print(1 + 1)'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			before, command, err := split(cmd, args, f.image == "")
			if err != nil {
				return err
			}
			if len(command) == 0 {
				return usagef("give an image and a command: fsb run IMAGE -- COMMAND")
			}
			o, err := f.options(a, before, keeper)
			if err != nil {
				return err
			}
			if o.Image == "" {
				return usagef("give an image: fsb run IMAGE -- COMMAND")
			}
			svc, err := a.service()
			if err != nil {
				return err
			}
			return a.runOnce(cmd.Context(), svc, o, command)
		},
	}
	f.register(cmd)
	cmd.SetFlagErrorFunc(dashHint)
	return cmd
}

// runOnce chooses the id itself, so that there is something to remove even
// when the answer to the create never arrives.
func (a *app) runOnce(ctx context.Context, svc flash.Service, o flash.CreateOptions, command []string) (err error) {
	o.ID = flash.NewSandboxID()
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		var e *flash.Error
		if errors.As(err, &e) && e.Reason == "connection_failed" {
			return // it has never been asked for
		}
		if delErr := svc.Delete(clean, o.ID, flash.DeleteOptions{}); delErr != nil && !errors.Is(delErr, flash.NotFound) {
			_, _ = fmt.Fprintf(a.Stderr, "error: sandbox %s could not be removed: %s\n", o.ID, flash.AsError(delErr).Message)
			if err == nil && a.code == 0 {
				a.code = exitRefused
			}
		}
	}()
	create, cancel := a.long(ctx)
	defer cancel()
	if _, err := svc.Create(create, o); err != nil {
		return err
	}
	return a.exec(ctx, svc, o.ID, command)
}
