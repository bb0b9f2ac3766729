package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func (a *app) imagesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "images",
		Short: "List cached images and pulls under way",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := a.service()
			if err != nil {
				return err
			}
			ctx, cancel := a.brief(cmd.Context())
			defer cancel()
			list, err := svc.Images(ctx)
			if err != nil {
				return err
			}
			if a.json {
				if list == nil {
					list = []flash.Image{}
				}
				return a.printJSON(list)
			}
			var rows [][]string
			for _, i := range list {
				rows = append(rows, []string{i.Reference, shortDigest(i.Digest), imageState(i), size(i.SizeBytes), strconv.Itoa(i.Leases), stamp(i.LastUsed)})
			}
			return a.printTable("REFERENCE DIGEST STATE SIZE USERS USED", rows)
		},
	}
}

// imageState is the state with how far it has come, or why it failed.
func imageState(i flash.Image) string {
	switch {
	case i.Error != "":
		return i.State + ": " + i.Error
	case i.State == "pulling" && i.WantBytes > 0:
		return fmt.Sprintf("%s %d%%", i.State, 100*i.DoneBytes/i.WantBytes)
	}
	return i.State
}
