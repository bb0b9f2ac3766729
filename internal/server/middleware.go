package server

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
	"github.com/flash-sandbox/flash-sandbox/internal/api/rest"
)

// handler puts what concerns every request around next, outermost first:
// the id, the log line and the numbers, the net under panics, the refusals, the prefix.
func (s *Server) handler(next http.Handler, prefixes []string) http.Handler {
	numbers := newNumbers(s.o.Registry)
	next = strip(prefixes, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.Add(1)
		defer s.running.Add(-1)
		began := time.Now()
		x := &api.Exchange{RequestID: api.RequestID(r.Header.Get(api.RequestIDHeader))}
		w.Header().Set(api.RequestIDHeader, x.RequestID)
		rec := &recorder{ResponseWriter: w}
		r = r.WithContext(api.WithExchange(r.Context(), x))
		numbers.begin()
		defer func() {
			took := time.Since(began)
			numbers.end(x, rec.code(), took)
			s.logRequest(r, x, rec, took)
		}()
		defer s.recover(rec, r, x)
		if err := s.refuse(r); err != nil {
			rest.WriteProblem(rec, r, err)
			return
		}
		next.ServeHTTP(rec, r)
	})
}

// recover answers a request whose handler has panicked. Only when part of an
// answer is already out is the connection cut, as nothing else can tell.
func (s *Server) recover(w *recorder, r *http.Request, x *api.Exchange) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	err := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	if w.status == 0 {
		for k := range w.Header() {
			if k != api.RequestIDHeader {
				w.Header().Del(k)
			}
		}
		rest.WriteProblem(w, r, err)
		return
	}
	x.Err = err
	s.log.Error("a request failed after its answer had begun", "request_id", x.RequestID, "route", x.Route, "err", err)
	panic(http.ErrAbortHandler)
}

// refuse turns requests away before any handler sees them.
func (s *Server) refuse(r *http.Request) error {
	if err := refuseBrowser(r); err != nil {
		return err
	}
	// Connections that are still open may bring new work while the rest is
	// being finished. Nothing has happened yet, so asking again is safe.
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if s.Draining() && (!reads || s.base.Err() != nil) {
		return drainingError()
	}
	return nil
}

// refuseBrowser refuses web pages that reach for the daemon through the browser
// of someone who may reach it: it has no pages of its own and asks for no
// password on loopback. Only browsers send these headers.
func refuseBrowser(r *http.Request) error {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	foreign := func(what string) error {
		return &flash.Error{Code: flash.Denied, Reason: "foreign_origin", Message: what + ": requests from other web sites are refused"}
	}
	if origin != "" {
		u, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(u.Host, r.Host) || u.Host == "" {
			return foreign("Origin")
		}
	}
	if site == "cross-site" || site == "same-site" {
		return foreign("Sec-Fetch-Site")
	}
	if origin == "" && (site == "" || site == "none") {
		return nil
	}
	// A page whose name was made to point at 127.0.0.1 is "same-origin" with
	// the daemon; its name gives it away.
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && isLoopback(local.String()) && !isLoopbackName(r.Host) {
		return foreign("Host")
	}
	return nil
}

func isLoopback(addr string) bool {
	a, err := netip.ParseAddrPort(addr)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

func isLoopbackName(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// logRequest writes the one line of a request. It holds no user data.
func (s *Server) logRequest(r *http.Request, x *api.Exchange, w *recorder, took time.Duration) {
	level := slog.LevelDebug
	attrs := []slog.Attr{
		slog.String("request_id", x.RequestID), slog.String("method", r.Method), slog.String("route", x.Route),
		slog.Int("status", w.code()), slog.Int64("bytes", w.bytes), slog.Duration("dur", took),
	}
	if x.Sandbox != "" {
		attrs = append(attrs, slog.String("sandbox", string(x.Sandbox)))
	}
	if x.Err != nil {
		e := flash.AsError(x.Err)
		attrs = append(attrs, slog.String("code", string(e.Code)))
		switch {
		case e.Reason == api.ReasonInterrupted:
			level = slog.LevelWarn
		case e.Code == flash.Internal:
			level = slog.LevelError
		case e.Code == flash.Unavailable, e.Code == flash.Timeout, e.Code == flash.Exhausted:
			level = slog.LevelWarn
		}
		if level > slog.LevelDebug {
			attrs = append(attrs, slog.String("err", x.Err.Error()))
		}
	}
	s.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// recorder notes what an answer was.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush makes streams possible; connect asks for it.
func (w *recorder) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack is there for protocol upgrades.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
