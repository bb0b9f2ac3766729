// Package registry is an image registry on loopback for tests and the demo. It
// serves OCI image layouts from the disk, counts what is asked of it, can ask
// for credentials, and can be made slow or broken. It is not a registry for
// production: what is pushed is kept in memory.
//
//	reg := registry.Start(t)
//	reg.AddLayout(t, "library/alpine:latest", registry.Layout(t, "alpine-python"))
//	store, err := image.Open(image.Config{Mirrors: map[string][]string{"docker.io": {reg.URL()}}})
package registry

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Options says how a registry behaves. The zero value serves anyone on a free
// loopback port.
type Options struct {
	Addr     string // to listen on; "" means 127.0.0.1:0
	Auth     Auth   // how clients prove who they are
	User     string // with Auth
	Password string // with Auth
}

// Auth is a scheme of authentication.
type Auth string

// The schemes.
const (
	AuthNone  Auth = ""      // serve anyone
	AuthBasic Auth = "basic" // credentials with each request
	AuthToken Auth = "token" // credentials buy a token, as with Docker's own registry
	// AuthBroken challenges for a token and has a token service that fails.
	AuthBroken Auth = "broken"
)

// Server is a running registry.
type Server struct {
	opts  Options
	lis   net.Listener
	http  *http.Server
	inner http.Handler
	blobs *blobs
	done  chan struct{}

	mu        sync.Mutex
	requests  []Request
	intercept func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

// Request is one request that the registry was asked.
type Request struct{ Method, Path string }

// Open starts a registry. Close ends it.
func Open(opts Options) (*Server, error) {
	if opts.Addr == "" {
		opts.Addr = "127.0.0.1:0"
	}
	lis, err := net.Listen("tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s := &Server{opts: opts, lis: lis, blobs: newBlobs(), done: make(chan struct{})}
	s.inner = ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithBlobHandler(s.blobs))
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(lis)
	}()
	return s, nil
}

// Addr returns the host and port, as it stands in references.
func (s *Server) Addr() string { return s.lis.Addr().String() }

// URL returns the address as a mirror setting takes it.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Close ends the registry and all connections to it at once.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// Intercept puts f before the registry: it may delay, answer itself, or hand
// on to next. A nil f takes it out.
func (s *Server) Intercept(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Requests returns what was asked since the start or the last Reset.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Count returns how many requests had that method and a path that holds part.
func (s *Server) Count(method, part string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Method == method && strings.Contains(r.Path, part) {
			n++
		}
	}
	return n
}

// Reset forgets the requests so far.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, Request{r.Method, r.URL.Path})
	intercept := s.intercept
	s.mu.Unlock()
	if !s.authorize(w, r) {
		return
	}
	if intercept != nil {
		intercept(w, r, s.inner)
		return
	}
	s.inner.ServeHTTP(w, r)
}

// Slow returns an interceptor that sends blobs at about bytesPerSecond.
func Slow(bytesPerSecond int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = &slowWriter{ResponseWriter: w, ctx: r.Context(), rate: bytesPerSecond}
		}
		next.ServeHTTP(w, r)
	}
}

// Stall returns an interceptor that sends the first n bytes of each blob and
// then nothing until the client leaves.
func Stall(n int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = &stallWriter{ResponseWriter: w, ctx: r.Context(), left: n}
		}
		next.ServeHTTP(w, r)
	}
}

// Cut returns an interceptor that breaks the connection after n bytes of each blob.
func Cut(n int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = &cutWriter{ResponseWriter: w, left: n}
		}
		next.ServeHTTP(w, r)
	}
}

// Fail returns an interceptor that answers everything with a status.
func Fail(status int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		http.Error(w, http.StatusText(status), status)
	}
}

type slowWriter struct {
	http.ResponseWriter
	ctx  context.Context
	rate int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	done := 0
	for len(p) > 0 {
		n := min(len(p), max(1, w.rate/20))
		m, err := w.ResponseWriter.Write(p[:n])
		done += m
		if err != nil {
			return done, err
		}
		if f, ok := w.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		p = p[n:]
		select {
		case <-w.ctx.Done():
			return done, w.ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return done, nil
}

type stallWriter struct {
	http.ResponseWriter
	ctx  context.Context
	left int
}

func (w *stallWriter) Write(p []byte) (int, error) {
	if len(p) <= w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	n, err := w.ResponseWriter.Write(p[:w.left])
	w.left = 0
	if err != nil {
		return n, err
	}
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	<-w.ctx.Done()
	return n, w.ctx.Err()
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	_, _ = w.ResponseWriter.Write(p[:w.left])
	panic(http.ErrAbortHandler)
}

// Put stores an image, or another tag of it, under "repository:tag".
func (s *Server) Put(name string, img v1.Image) error { return s.put(name, img, false) }
