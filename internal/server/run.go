package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// Run serves until ctx ends or a listener fails, and returns when no request
// is under way any more, so that what serves them may then be closed. When ctx
// ends, /readyz fails at once and new work is refused; after DrainDelay the
// ports close; what is still under way after DrainTimeout is cancelled and
// answered with the error api.Interrupted. The error is nil after an orderly
// end. It says so when handlers are left that don't return.
func (s *Server) Run(ctx context.Context) error {
	// Requests outlive ctx: drain ends theirs.
	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	for _, l := range []net.Listener{s.httpL, s.grpcL} {
		if l == nil {
			continue
		}
		s.log.Info("listening", "addr", l.Addr().String())
		g.Go(func() error {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-failed.Done():
		}
		return s.drain()
	})
	return g.Wait()
}

func (s *Server) drain() error {
	s.draining.Store(true)
	s.log.Info("draining", "timeout", s.o.DrainTimeout)
	time.Sleep(s.o.DrainDelay)
	err := s.shutdown(s.o.DrainTimeout)
	// Not by cutting connections: a client that loses one without an answer
	// sends the same command again, to the next daemon.
	s.cancel(api.Interrupted())
	if errors.Is(err, context.DeadlineExceeded) {
		if n := s.running.Load(); n > 0 {
			s.log.Warn("requests under way are cancelled, the drain timeout is over", "requests", n)
			err = s.shutdown(s.o.CancelTimeout)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		// Connections that never brought a request, clients that don't read
		// their answers or don't send the rest of their requests.
		s.log.Warn("connections are cut", "requests", s.running.Load())
		err = s.http.Close()
	}
	return errors.Join(err, s.awaitHandlers(s.o.CancelTimeout))
}

func (s *Server) shutdown(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return s.http.Shutdown(ctx)
}

// awaitHandlers returns when no handler runs. It asks again and again, as
// net/http does for connections: one may still begin, only to be refused.
func (s *Server) awaitHandlers(d time.Duration) error {
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		n := s.running.Load()
		if n == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d requests that were cancelled have not ended", n)
		}
	}
}
