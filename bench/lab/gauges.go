package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// Gauges is what a daemon holds at one moment. A number that can't be had is -1.
type Gauges struct {
	RSS        int64 `json:"rss_bytes"`  // resident memory
	Anonymous  int64 `json:"anon_bytes"` // of that, what is not the program's file
	FDs        int64 `json:"fds"`
	Goroutines int64 `json:"goroutines"`
	Threads    int64 `json:"threads"`
}

// Gauges reads what the daemon holds: from its /metrics, and from /proc where
// its process is known.
func (d *Daemon) Gauges(ctx context.Context) Gauges {
	g := Gauges{-1, -1, -1, -1, -1}
	if m, err := d.metrics(ctx); err == nil {
		for name, to := range map[string]*int64{
			"process_resident_memory_bytes": &g.RSS, "process_open_fds": &g.FDs, "go_goroutines": &g.Goroutines,
		} {
			if v, ok := m[name]; ok {
				*to = int64(v)
			}
		}
	}
	if d.PID == 0 {
		return g
	}
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID)); err == nil {
		g.FDs = int64(len(fds))
	}
	if f, err := os.Open(fmt.Sprintf("/proc/%d/status", d.PID)); err == nil {
		defer f.Close()
		status := parseStatus(f)
		g.RSS, g.Anonymous, g.Threads = status["VmRSS"]<<10, status["RssAnon"]<<10, status["Threads"]
	}
	return g
}

// metrics reads the samples of /metrics that have no labels.
func (d *Daemon) metrics(ctx context.Context) (map[string]float64, error) {
	// A connection of its own, so that it is gone when the counting begins.
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/metrics answers %s", res.Status)
	}
	return parseMetrics(res.Body), nil
}

func parseMetrics(r io.Reader) map[string]float64 {
	out := map[string]float64{}
	for s := bufio.NewScanner(r); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || strings.Contains(f[0], "{") {
			continue
		}
		if v, err := strconv.ParseFloat(f[1], 64); err == nil {
			out[f[0]] = v
		}
	}
	return out
}

// parseStatus reads the numbers of a /proc/PID/status.
func parseStatus(r io.Reader) map[string]int64 {
	out := map[string]int64{}
	for s := bufio.NewScanner(r); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		if f := strings.Fields(value); len(f) > 0 {
			if v, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				out[name] = v
			}
		}
	}
	return out
}
