package image

import (
	"context"
	"sync"
)

// flights runs a function once for all callers that ask for the same key
// meanwhile. A caller whose context ends leaves alone; when the last one has
// left, the function's context ends.
type flights struct {
	base context.Context
	wg   sync.WaitGroup
	mu   sync.Mutex
	m    map[string]*flight
}

type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	err     error // once done
}

func (g *flights) do(ctx context.Context, key string, fn func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	f := g.m[key]
	if f == nil {
		if err := g.base.Err(); err != nil {
			g.mu.Unlock()
			return err
		}
		fctx, cancel := context.WithCancel(g.base)
		f = &flight{done: make(chan struct{}), cancel: cancel}
		if g.m == nil {
			g.m = map[string]*flight{}
		}
		g.m[key] = f
		g.wg.Add(1)
		go func() {
			defer g.wg.Done()
			defer cancel()
			f.err = fn(fctx)
			g.mu.Lock()
			g.forget(key, f)
			g.mu.Unlock()
			close(f.done)
		}()
	}
	f.waiters++
	g.mu.Unlock()

	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		g.forget(key, f) // whoever comes now starts anew
	}
	return ctx.Err()
}

func (g *flights) forget(key string, f *flight) {
	if g.m[key] == f {
		delete(g.m, key)
	}
}

// wait returns when no function runs any more.
func (g *flights) wait() { g.wg.Wait() }
