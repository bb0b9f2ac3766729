package manager

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// metrics are the manager's own, named for what users feel.
type metrics struct {
	create *prometheus.HistogramVec
	exec   *prometheus.HistogramVec
	ends   *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, t *table) *metrics {
	x := &metrics{
		create: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flash_sandbox_create_seconds", Help: "Time from a create request until the sandbox takes commands.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 14),
		}, []string{"backend", "path"}),
		exec: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flash_sandbox_exec_seconds", Help: "Time from an exec request to the end of its command.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 18),
		}, []string{"backend"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flash_sandbox_ended_total", Help: "Sandboxes that ended without being deleted, by cause.",
		}, []string{"backend", "cause"}),
	}
	if r != nil {
		r.MustRegister(x.create, x.exec, x.ends, &stateCollector{t})
	}
	return x
}

func (x *metrics) created(backend, path string, since time.Time) {
	x.create.WithLabelValues(backend, path).Observe(time.Since(since).Seconds())
}

func (x *metrics) ran(backend string, d time.Duration) {
	x.exec.WithLabelValues(backend).Observe(d.Seconds())
}

func (x *metrics) ended(backend string, c flash.Cause) {
	x.ends.WithLabelValues(backend, string(c)).Inc()
}

// stateCollector counts sandboxes by backend and state when scraped.
type stateCollector struct{ t *table }

var sandboxesDesc = prometheus.NewDesc("flash_sandboxes", "Sandboxes by backend and state.", []string{"backend", "state"}, nil)

func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) { ch <- sandboxesDesc }

func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	type key struct{ backend, state string }
	n := map[key]float64{}
	for e := range c.t.all() {
		sb := e.view.Load()
		n[key{sb.Backend, string(sb.State)}]++
	}
	for k, v := range n {
		ch <- prometheus.MustNewConstMetric(sandboxesDesc, prometheus.GaugeValue, v, k.backend, k.state)
	}
}

// cpuSample is the previous reading of a sandbox's CPU counter.
type cpuSample struct {
	mu   sync.Mutex
	at   time.Time
	used time.Duration
}

// percent returns the use since the previous reading, or since start (its creation) for the
// first one; 100 is one core. Readings less than 50 ms apart share a window,
// since the counters are too coarse for less.
func (c *cpuSample) percent(s backend.Stats, start time.Time) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, used := c.at, c.used
	if from.IsZero() || s.CPU < used {
		from, used = start, 0
	}
	window := s.At.Sub(from)
	if window <= 0 {
		return 0
	}
	if window >= 50*time.Millisecond {
		c.at, c.used = s.At, s.CPU
	}
	return 100 * float64(s.CPU-used) / float64(window)
}

// Metrics implements flash.Service.
func (m *Manager) Metrics(ctx context.Context, id flash.ID) (*flash.Metrics, error) {
	e, err := m.table.find(id)
	if err != nil {
		return nil, err
	}
	mc, sb, err := e.live()
	if err != nil {
		return nil, err
	}
	reader, err := capability[backend.StatsReader](e, mc, backend.CapMetrics)
	if err != nil {
		return nil, err
	}
	s, err := reader.Stats(ctx)
	if err != nil {
		return nil, err
	}
	out := &flash.Metrics{
		MemoryUsageBytes: s.MemoryUsageBytes, MemoryLimitBytes: s.MemoryLimitBytes,
		CPUPercent: e.cpu.percent(s, sb.CreatedAt), PidsCurrent: s.Pids,
		NetRxBytes: s.NetRxBytes, NetTxBytes: s.NetTxBytes,
		BlockReadBytes: s.BlockReadBytes, BlockWriteBytes: s.BlockWriteBytes,
	}
	if s.MemoryLimitBytes > 0 {
		out.MemoryPercent = min(100, 100*float64(s.MemoryUsageBytes)/float64(s.MemoryLimitBytes))
	}
	return out, nil
}

// capability returns mc's T, or flash.Unsupported with a sentence.
func capability[T any](e *entry, mc backend.Machine, name string) (T, error) {
	t, ok := backend.As[T](mc)
	if masker, masks := backend.As[backend.Masker](e.backend); masks && slices.Contains(masker.Masked(), name) {
		ok = false
	}
	if !ok {
		return t, flash.Errorf(flash.Unsupported, "the %s backend can't do %s here", e.backend.name, name)
	}
	return t, nil
}
