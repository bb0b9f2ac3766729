package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/peers"
	"github.com/flash-sandbox/flash-sandbox/bench/report"
)

// getWidth is how many requests for a record are under way at a time.
const getWidth = 16

// gets counts requests per second, for a sandbox's record and of a server that
// does nothing, in random order.
func (b *bench) gets(ctx context.Context, r *report.Round) {
	if b.daemon == nil {
		return
	}
	i := slices.IndexFunc(b.opened, func(m member) bool { return m.name == peers.OursGVisor || m.name == peers.OursDocker })
	fail := func(err error) {
		if ctx.Err() == nil {
			r.Samples = append(r.Samples, report.Sample{Peer: report.OurServer, Op: report.Get, Error: err.Error()})
		}
	}
	box, err := b.opened[i].Create(ctx, lab.Busybox)
	if err != nil {
		fail(err)
		return
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
		defer cancel()
		if err := box.Delete(ctx); err != nil {
			fail(err)
		}
	}()
	empty, err := b.lab.Empty(ctx)
	if err != nil {
		fail(err)
		return
	}
	targets := []struct{ name, url string }{
		{report.EmptyServer, empty},
		{report.OurServer, b.daemon.URL + "/sandboxes/" + string(box.(peers.OurBox).ID)},
	}
	b.random.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	for _, t := range targets {
		s := report.Sample{Peer: t.name, Op: report.Get}
		if s.Value, err = requests(ctx, t.url, b.plan.getTime); err != nil {
			s.Error = err.Error()
		}
		if ctx.Err() == nil {
			r.Samples = append(r.Samples, s)
		}
	}
}

// requests returns how many requests per second url answers on one pool of
// keep-alive connections.
func requests(ctx context.Context, url string, d time.Duration) (float64, error) {
	tr := &http.Transport{MaxIdleConnsPerHost: getWidth, MaxConnsPerHost: getWidth}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	var n atomic.Int64
	var failed atomic.Pointer[error]
	one := func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err == nil {
			var res *http.Response
			if res, err = c.Do(req); err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %s", res.Status)
				}
			}
		}
		if err != nil {
			failed.Store(&err)
		}
		return err == nil
	}
	each(getWidth, func() { one() }) // connections are made before the clock starts
	began := time.Now()
	each(getWidth, func() {
		for time.Since(began) < d && one() {
			n.Add(1)
		}
	})
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(n.Load()) / time.Since(began).Seconds(), nil
}

// daemonChecks has sandboxes come and go and counts what the daemon keeps.
func (b *bench) daemonChecks(ctx context.Context) error {
	if b.daemon == nil {
		return nil
	}
	for _, m := range b.opened {
		if m.name != peers.OursGVisor && m.name != peers.OursDocker || b.plan.leaks == 0 {
			continue
		}
		b.lab.Logf("counting what %d sandboxes of %s leave in fsbd", b.plan.leaks, m.name)
		if err := b.comeAndGo(ctx, m, 2); err != nil { // pools fill up
			return err
		}
		leak := &report.Leak{Sandboxes: b.plan.leaks, Before: b.settle(ctx, lab.Gauges{})}
		if err := b.comeAndGo(ctx, m, b.plan.leaks); err != nil {
			return err
		}
		leak.After = b.settle(ctx, leak.Before)
		b.run.Leaks[m.name] = leak
	}
	after := b.settle(ctx, lab.Gauges{})
	b.run.After = &after
	return ctx.Err()
}

func (b *bench) comeAndGo(ctx context.Context, m member, n int) error {
	for range n {
		var r report.Round
		b.sequence(ctx, &r, m, lab.Busybox, 0, false)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, s := range r.Samples {
			if s.Error != "" {
				b.run.Notes = append(b.run.Notes, fmt.Sprintf("%s, while descriptors were counted: %s: %s", m.name, s.Op, s.Error))
			}
		}
	}
	return nil
}

// settleTime bounds how long gauges are given to come to rest.
const settleTime = time.Minute

// settle reads the gauges once they have not fallen to a new low for 10 s, are
// no higher than before, or settleTime is over. Connections of ours don't
// count: they are closed first.
func (b *bench) settle(ctx context.Context, before lab.Gauges) lab.Gauges {
	b.daemon.Client.Close()
	least := b.daemon.Gauges(ctx)
	end := time.Now().Add(settleTime)
	for steady := 0; steady < 20 && time.Now().Before(end) && ctx.Err() == nil; { // pools of connections take their time
		time.Sleep(500 * time.Millisecond)
		now := b.daemon.Gauges(ctx)
		if now.FDs < least.FDs || now.Goroutines < least.Goroutines {
			steady = 0
		} else {
			steady++
		}
		// Gauges waver by the request that reads them and by timers; what stays
		// is the low.
		if now.FDs+now.Goroutines <= least.FDs+least.Goroutines {
			least = now
		}
		if least.FDs <= before.FDs && least.Goroutines <= before.Goroutines {
			break
		}
	}
	return least
}
