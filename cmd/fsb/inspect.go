package main

import (
	"strings"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// inspection is a sandbox with, while it runs, a look inside.
type inspection struct {
	sandboxView
	Platform *flash.PlatformInfo `json:"platform,omitempty"`
}

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect ID",
		Short: "Show a sandbox in full",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := a.service()
			if err != nil {
				return err
			}
			ctx, cancel := a.brief(cmd.Context())
			defer cancel()
			sb, err := svc.Get(ctx, flash.ID(args[0]))
			if err != nil {
				return err
			}
			in := inspection{sandboxView: viewOf(sb)}
			if sb.State == flash.Running {
				// It may have ended since; then there is nothing to look into.
				if p, err := svc.PlatformInfo(ctx, sb.ID); err == nil {
					in.Platform = p
				}
			}
			if a.json {
				return a.printJSON(in)
			}
			return a.printPairs(in.pairs()...)
		},
	}
}

func (in *inspection) pairs() []pair {
	pairs := []pair{
		{"id", in.ID}, {"status", in.Status}, {"backend", in.Backend}, {"image", in.Image}, {"digest", in.Digest},
		{"command", strings.Join(in.Command, " ")}, {"memory_mb", in.MemoryMB}, {"cpu_cores", in.CPUCores},
		{"created", stamp(in.CreatedAt)}, {"ready", stamp(in.ReadyAt)}, {"snapshot_id", in.SnapshotID},
	}
	if e := in.Ending; e != nil {
		pairs = append(pairs, pair{"cause", e.Cause}, pair{"exit_code", e.ExitCode}, pair{"message", e.Message})
	}
	if p := in.Platform; p != nil {
		pairs = append(pairs,
			pair{"isolation", p.Isolation}, pair{"kernel", strings.TrimSpace(p.System + " " + p.Release)}, pair{"machine", p.Machine},
			pair{"hostname", p.Hostname}, pair{"os", p.OS}, pair{"python", p.Python})
	}
	return pairs
}
