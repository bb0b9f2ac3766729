package main

import "github.com/spf13/cobra"

func (a *app) psCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ps",
		Short: "List sandboxes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := a.service()
			if err != nil {
				return err
			}
			ctx, cancel := a.brief(cmd.Context())
			defer cancel()
			list, err := svc.List(ctx)
			if err != nil {
				return err
			}
			if a.json {
				views := make([]sandboxView, 0, len(list))
				for _, s := range list {
					views = append(views, viewOf(s))
				}
				return a.printJSON(views)
			}
			var rows [][]string
			for _, s := range list {
				rows = append(rows, []string{string(s.ID), string(s.State), s.Backend, s.Image, stamp(s.CreatedAt)})
			}
			return a.printTable("ID STATUS BACKEND IMAGE CREATED", rows)
		},
	}
}
