package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Stats implements backend.StatsReader. A local engine's container is read
// from its cgroup's files, which takes well under a millisecond; the engine's
// own statistics wait for its sampler.
func (m *Machine) Stats(ctx context.Context) (backend.Stats, error) {
	pid, group := m.processes(ctx)
	if group != nil {
		at := time.Now()
		s, err := group.Stats()
		if err == nil {
			out := backend.Stats{
				At: at, CPU: s.CPU, MemoryUsageBytes: s.MemoryUsageBytes, MemoryLimitBytes: s.MemoryLimitBytes,
				Pids: s.Pids, BlockReadBytes: s.BlockReadBytes, BlockWriteBytes: s.BlockWriteBytes,
			}
			out.NetRxBytes, out.NetTxBytes = network(pid)
			return out, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			m.b.log.Debug("cgroup can't be read, asking the engine", "sandbox", m.id, "err", err)
		}
	}
	c, err := m.inspect(ctx)
	if err != nil {
		return backend.Stats{}, err
	}
	if status(c.State) == backend.StatusEnded {
		return backend.Stats{}, endedError(m.id)
	}
	return m.engineStats(ctx)
}

// network sums the counters of all interfaces but loopback in the network
// namespace of a process. They are 0 where there are none.
func network(pid int) (rx, tx uint64) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		name, counters, ok := strings.Cut(line, ":")
		f := strings.Fields(counters)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 16 {
			continue
		}
		r, _ := strconv.ParseUint(f[0], 10, 64)
		t, _ := strconv.ParseUint(f[8], 10, 64)
		rx, tx = rx+r, tx+t
	}
	return rx, tx
}

// engineStats asks the engine for one reading.
func (m *Machine) engineStats(ctx context.Context) (backend.Stats, error) {
	r, err := call(ctx, m.b.engine, opStats, func(ctx context.Context, c *client.Client) (container.StatsResponse, error) {
		var r container.StatsResponse
		res, err := c.ContainerStats(ctx, m.cid, client.ContainerStatsOptions{})
		if err != nil {
			return r, err
		}
		defer func() { _ = res.Body.Close() }()
		return r, json.NewDecoder(res.Body).Decode(&r)
	})
	if err != nil {
		return backend.Stats{}, m.stateError("read statistics", err)
	}
	out := backend.Stats{
		At: r.Read, CPU: time.Duration(r.CPUStats.CPUUsage.TotalUsage),
		MemoryUsageBytes: r.MemoryStats.Usage, MemoryLimitBytes: r.MemoryStats.Limit, Pids: r.PidsStats.Current,
	}
	if out.At.IsZero() {
		out.At = time.Now()
	}
	cache, ok := r.MemoryStats.Stats["total_inactive_file"] // cgroup v1
	if !ok {
		cache = r.MemoryStats.Stats["inactive_file"]
	}
	out.MemoryUsageBytes -= min(cache, out.MemoryUsageBytes)
	for name, n := range r.Networks {
		if name != "lo" {
			out.NetRxBytes += n.RxBytes
			out.NetTxBytes += n.TxBytes
		}
	}
	for _, e := range r.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			out.BlockReadBytes += e.Value
		case "write":
			out.BlockWriteBytes += e.Value
		}
	}
	return out, nil
}
