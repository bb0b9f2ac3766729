package main

import (
	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func (a *app) stopCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "stop ID...",
		Short: "Stop and remove sandboxes",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, "stopped", func(svc flash.Service, id flash.ID) error {
				ctx, cancel := a.brief(cmd.Context())
				defer cancel()
				return svc.Delete(ctx, id, flash.DeleteOptions{Keep: keep})
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "only pause them, so that fsb resume wakes them")
	return cmd
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume ID...",
		Short: "Wake paused sandboxes",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, "resumed", func(svc flash.Service, id flash.ID) error {
				ctx, cancel := a.long(cmd.Context())
				defer cancel()
				return svc.Resume(ctx, id)
			})
		},
	}
}
