package gvisor

import (
	"context"
	"fmt"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"gvisor.dev/gvisor/runsc/boot"
)

// statsTimeout bounds a reading of counters.
const statsTimeout = 5 * time.Second

// Stats reads the counters: time, memory and disk from the host's cgroup,
// which the sentry itself is in; processes and network from the sentry, as
// they are inside.
func (m *machine) Stats(ctx context.Context) (backend.Stats, error) {
	if m.hasEnded() {
		return backend.Stats{}, m.conflict()
	}
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	g, err := m.cgroup()
	if err != nil {
		return backend.Stats{}, fmt.Errorf("stats of %s: %w", m.id, err)
	}
	c, err := g.Stats()
	if err != nil {
		return backend.Stats{}, fmt.Errorf("stats of %s: %w", m.id, err)
	}
	s := backend.Stats{
		At: time.Now(), CPU: c.CPU,
		MemoryUsageBytes: c.MemoryUsageBytes, MemoryLimitBytes: c.MemoryLimitBytes,
		BlockReadBytes: c.BlockReadBytes, BlockWriteBytes: c.BlockWriteBytes,
	}
	var e boot.EventOut
	cid := containerID
	if err := m.call(ctx, boot.ContMgrEvent, &cid, &e); err != nil {
		if m.hasEnded() {
			return backend.Stats{}, m.conflict()
		}
		return backend.Stats{}, fmt.Errorf("stats of %s: %w", m.id, err)
	}
	s.Pids = e.Event.Data.Pids.Current
	for _, n := range e.Event.Data.NetworkInterfaces {
		s.NetRxBytes += n.RxBytes
		s.NetTxBytes += n.TxBytes
	}
	return s, nil
}
