package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func (a *app) backendsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backends",
		Short: "Show which backends the daemon can use, best first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := a.service()
			if err != nil {
				return err
			}
			ctx, cancel := a.brief(cmd.Context())
			defer cancel()
			list, err := svc.Backends(ctx)
			if err != nil {
				return err
			}
			if a.json {
				if list == nil {
					list = []flash.BackendStatus{}
				}
				return a.printJSON(list)
			}
			var rows [][]string
			for _, b := range list {
				available := "yes"
				if !b.Available {
					available = "no"
				}
				rows = append(rows, []string{b.Name, available, b.Isolation, b.Version, strings.Join(b.Capabilities, ",")})
			}
			if err := a.printTable("NAME AVAILABLE ISOLATION VERSION CAPABILITIES", rows); err != nil {
				return err
			}
			return a.printNotes(list)
		},
	}
}

// printNotes writes what needs a sentence below the table.
func (a *app) printNotes(list []flash.BackendStatus) error {
	for _, b := range list {
		notes := b.Notes
		if b.Reason != "" {
			notes = append([]string{b.Reason}, notes...)
		}
		for _, n := range notes {
			if _, err := fmt.Fprintf(a.Stdout, "\n%s: %s", b.Name, plain(n)); err != nil {
				return err
			}
		}
		if len(notes) > 0 {
			_, _ = fmt.Fprintln(a.Stdout)
		}
	}
	return nil
}
