// Package server listens: it puts REST and gRPC on the same ports, over
// HTTP/1.1 and HTTP/2 without TLS, below any of several path prefixes, and ends
// without cutting off what is under way.
//
// Around the handlers of internal/api it adds what concerns every request: an
// id, a line in the log, numbers for Prometheus, an answer in place of a panic,
// and a refusal for web pages that reach for the daemon through a browser.
//
//	s, err := server.New(server.Options{HTTPAddr: "127.0.0.1:8080", GRPCAddr: "127.0.0.1:50051", Service: svc, Logger: log})
//	if err := s.Open(); err != nil { ... } // a port that is taken shows here
//	err = s.Run(ctx)                       // serves until ctx ends, then drains
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api/rest"
	"github.com/flash-sandbox/flash-sandbox/internal/api/rpc"
)

// Options configures a Server. Service is required.
type Options struct {
	// HTTPAddr and GRPCAddr are "host:port" to listen on; port 0 picks a free
	// one. Both serve the same routes. An empty one, or a GRPCAddr equal to
	// HTTPAddr, is not opened.
	HTTPAddr, GRPCAddr string
	// BasePaths are path prefixes, such as "/v1/service/sandbox", that are
	// taken off requests that have them. Requests without remain valid.
	BasePaths []string

	Service flash.Service
	Version string // of the daemon
	Node    string // what node_id says; empty: "local"
	// Ready says why the daemon takes no work, beyond draining. Nil: it does.
	Ready func(ctx context.Context) error

	Logger   *slog.Logger         // nil: discarded
	Registry *prometheus.Registry // served at /metrics; nil: a new one

	// DrainDelay is how long the ports stay open after /readyz has begun to
	// fail, so that load balancers notice. Default: none.
	DrainDelay time.Duration
	// DrainTimeout is how long requests under way may take to end after that.
	// Default: 10 s. Then they are cancelled.
	DrainTimeout time.Duration
	// CancelTimeout is how long cancelled requests may take to clean up and
	// answer. Default: 10 s. Then connections are cut, and handlers have as
	// long again to return.
	CancelTimeout time.Duration
}

// Server serves the API. Open comes first, then Run, each once.
type Server struct {
	o        Options
	log      *slog.Logger
	http     *http.Server
	httpL    net.Listener
	grpcL    net.Listener
	draining atomic.Bool
	running  atomic.Int64 // handlers
	// base is the context above that of every request, cancel ends it.
	base   context.Context
	cancel context.CancelCauseFunc
}

// New returns a server that does not listen yet. Its error is about Options.
func New(o Options) (*Server, error) {
	if o.Service == nil {
		return nil, errors.New("server: Options.Service is required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 10 * time.Second
	}
	if o.CancelTimeout <= 0 {
		o.CancelTimeout = 10 * time.Second
	}
	prefixes, err := parsePrefixes(o.BasePaths)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, log: o.Logger}
	s.base, s.cancel = context.WithCancelCause(context.Background())
	mux := http.NewServeMux()
	path, h := rpc.New(o.Service)
	api := rest.New(o.Service, rest.Options{
		Version: o.Version, Node: o.Node, Ready: s.ready,
		Metrics: promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}),
	})
	// Not the mux alone: it would answer untidy paths with redirects.
	mux.Handle(path, h)
	s.http = &http.Server{
		Handler:           s.handler(route(path, mux, api), prefixes),
		BaseContext:       func(net.Listener) context.Context { return s.base },
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: 10 * time.Second,
		// No read or write timeout: a create may pull an image, an exec may
		// run for hours. Clients keep pools of idle connections and the oldest
		// have no answer to one that closes as they use it.
		IdleTimeout:    30 * time.Minute,
		MaxHeaderBytes: 64 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 1000,
			SendPingTimeout:      30 * time.Second,
			PingTimeout:          15 * time.Second,
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s, nil
}

// Handler returns everything that the ports serve.
func (s *Server) Handler() http.Handler { return s.http.Handler }

// Open listens. Its error is a sentence that names the setting.
func (s *Server) Open() error {
	var err error
	if s.o.HTTPAddr != "" {
		if s.httpL, err = listen("FSB_HTTP_ADDR", s.o.HTTPAddr); err != nil {
			return err
		}
	}
	// Two times port 0 are two ports.
	same := s.o.GRPCAddr == s.o.HTTPAddr && !strings.HasSuffix(s.o.GRPCAddr, ":0")
	if s.o.GRPCAddr != "" && !same {
		if s.grpcL, err = listen("FSB_GRPC_ADDR", s.o.GRPCAddr); err != nil {
			_ = s.Close()
			return err
		}
	}
	if s.httpL == nil && s.grpcL == nil {
		return flash.Errorf(flash.Invalid, "FSB_HTTP_ADDR and FSB_GRPC_ADDR: both are empty, nothing to listen on")
	}
	return nil
}

func listen(setting, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, flash.Errorf(flash.Exists, "%s: the port of %s is taken by another process", setting, addr).
			WithRemediation("end that process or choose another port").WithCause(err)
	case errors.Is(err, syscall.EACCES):
		return nil, flash.Errorf(flash.Denied, "%s: no permission to listen on %s; ports below 1024 need root", setting, addr).WithCause(err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, flash.Errorf(flash.Invalid, "%s: this machine has no address %s", setting, addr).WithCause(err)
	}
	return nil, flash.Errorf(flash.Invalid, "%s: can't listen on %q: %v", setting, addr, err)
}

// HTTPAddr returns where HTTP is listened on, "" if nowhere.
func (s *Server) HTTPAddr() string { return addrOf(s.httpL) }

// GRPCAddr returns the address for gRPC clients: its own, or that of HTTP.
func (s *Server) GRPCAddr() string {
	if s.grpcL == nil {
		return s.HTTPAddr()
	}
	return addrOf(s.grpcL)
}

func addrOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// Draining reports whether the server takes no new work any more.
func (s *Server) Draining() bool { return s.draining.Load() }

// Close closes listeners that Run has not taken over.
func (s *Server) Close() error {
	var errs []error
	for _, l := range []net.Listener{s.httpL, s.grpcL} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func drainingError() error {
	return &flash.Error{Code: flash.Unavailable, Reason: "draining", Message: "the daemon is shutting down and takes no new work", Remediation: "try again in a moment"}
}

func (s *Server) ready(ctx context.Context) error {
	if s.Draining() {
		return drainingError()
	}
	if s.o.Ready != nil {
		return s.o.Ready(ctx)
	}
	return nil
}
