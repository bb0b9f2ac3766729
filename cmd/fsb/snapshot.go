package main

import (
	"fmt"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func (a *app) snapshotCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot ID",
		Short: "Save a sandbox's state and pause it",
		Long: `Save a sandbox's files and, where the backend can, its memory, and leave the
sandbox paused. fsb resume wakes it; fsb create --snapshot makes another one
from the saved state.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := a.service()
			if err != nil {
				return err
			}
			ctx, cancel := a.long(cmd.Context())
			defer cancel()
			s, err := svc.Snapshot(ctx, flash.ID(args[0]))
			if err != nil {
				return err
			}
			v := snapshotViewOf(s)
			if a.json {
				return a.printJSON(v)
			}
			return a.printPairs(
				pair{"id", v.ID}, pair{"snapshot_path", v.SnapshotPath}, pair{"mem_file_path", v.MemFilePath},
				pair{"size", size(v.SizeBytes)}, pair{"detail", v.Detail})
		},
	}
}

func (a *app) snapshotsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "snapshots",
		Short: "List snapshots",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := a.service()
			if err != nil {
				return err
			}
			ctx, cancel := a.brief(cmd.Context())
			defer cancel()
			list, err := svc.Snapshots(ctx)
			if err != nil {
				return err
			}
			if a.json {
				views := make([]snapshotView, 0, len(list))
				for _, s := range list {
					views = append(views, snapshotViewOf(s))
				}
				return a.printJSON(views)
			}
			var rows [][]string
			for _, s := range list {
				memory := "no"
				if s.Memory {
					memory = "yes"
				}
				rows = append(rows, []string{string(s.ID), string(s.SandboxID), s.Backend, memory, size(s.SizeBytes), stamp(s.CreatedAt)})
			}
			return a.printTable("ID SANDBOX BACKEND MEMORY SIZE CREATED", rows)
		},
	}
}

func (a *app) rmSnapshotCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rmsnapshot ID...",
		Short: "Remove snapshots",
		Long:  "Remove snapshots. Sandboxes that were made from them live on.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, "removed", func(svc flash.Service, id flash.ID) error {
				ctx, cancel := a.brief(cmd.Context())
				defer cancel()
				return svc.DeleteSnapshot(ctx, id)
			})
		},
	}
}

// each does one thing to several ids, says so for each, and goes on after a
// failure; the last one's exit code counts.
func (a *app) each(cmd *cobra.Command, ids []string, done string, act func(flash.Service, flash.ID) error) error {
	svc, err := a.service()
	if err != nil {
		return err
	}
	ok := make([]string, 0, len(ids))
	for _, id := range ids {
		if err := act(svc, flash.ID(id)); err != nil {
			a.code = a.fail(cmd.Context(), cmd, err)
			continue
		}
		ok = append(ok, id)
		if !a.json {
			_, _ = fmt.Fprintf(a.Stdout, "%s %s\n", done, id)
		}
	}
	if a.json {
		return a.printJSON(map[string][]string{done: ok})
	}
	return nil
}
