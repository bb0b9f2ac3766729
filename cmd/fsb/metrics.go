package main

import (
	"fmt"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func (a *app) metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics ID",
		Short: "Show what a sandbox uses",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := a.service()
			if err != nil {
				return err
			}
			ctx, cancel := a.brief(cmd.Context())
			defer cancel()
			m, err := svc.Metrics(ctx, flash.ID(args[0]))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(m)
			}
			return a.printPairs(
				pair{"memory_usage_bytes", m.MemoryUsageBytes}, pair{"memory_limit_bytes", m.MemoryLimitBytes},
				pair{"memory_percent", fmt.Sprintf("%.2f", m.MemoryPercent)}, pair{"cpu_percent", fmt.Sprintf("%.2f", m.CPUPercent)},
				pair{"pids_current", m.PidsCurrent}, pair{"net_rx_bytes", m.NetRxBytes}, pair{"net_tx_bytes", m.NetTxBytes},
				pair{"block_read_bytes", m.BlockReadBytes}, pair{"block_write_bytes", m.BlockWriteBytes})
		},
	}
}
