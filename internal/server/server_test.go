package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api/rpc"
	"github.com/flash-sandbox/flash-sandbox/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service has one sandbox, sb-1. An exec of "wait" lasts until it is released
// or its caller leaves; it then takes its time to kill the command.
type service struct {
	flash.Service
	kill                 time.Duration
	begun, release, left chan struct{}
}

func newService() *service {
	return &service{begun: make(chan struct{}, 16), release: make(chan struct{}), left: make(chan struct{}, 16)}
}

func (s *service) Get(_ context.Context, id flash.ID) (*flash.Sandbox, error) {
	switch id {
	case "sb-1":
		return &flash.Sandbox{ID: id, State: flash.Running}, nil
	case "panic":
		panic("told to")
	case "broken":
		return nil, errors.New("a secret of the inside")
	}
	return nil, flash.SandboxNotFound(id, "")
}

func (s *service) Create(ctx context.Context, _ flash.CreateOptions) (*flash.Sandbox, error) {
	return s.Get(ctx, "sb-1")
}

func (s *service) Exec(ctx context.Context, id flash.ID, o flash.ExecOptions) (*flash.ExecResult, error) {
	res := &flash.ExecResult{Stdout: []byte("done"), Ending: flash.Ending{Cause: flash.CauseExited}}
	if len(o.Command) == 0 || o.Command[0] != "wait" {
		return res, nil
	}
	s.begun <- struct{}{}
	select {
	case <-s.release:
		return res, nil
	case <-ctx.Done():
		time.Sleep(s.kill)
		s.left <- struct{}{}
		return nil, ctx.Err()
	}
}

// open returns a running server and what ends it.
func open(t *testing.T, svc flash.Service, change ...func(*server.Options)) (*server.Server, func() error) {
	t.Helper()
	o := server.Options{HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", Service: svc, DrainTimeout: 5 * time.Second}
	for _, c := range change {
		c(&o)
	}
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	end := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s, end
}

// httpClients returns clients for HTTP/1.1 and for HTTP/2 without TLS.
func httpClients(t *testing.T) map[string]*http.Client {
	out := map[string]*http.Client{}
	for name, tr := range map[string]*http.Transport{"HTTP/1.1": {}, "h2c": rpc.Transport()} {
		if name == "h2c" {
			tr.Protocols.SetHTTP1(false)
		}
		t.Cleanup(tr.CloseIdleConnections)
		out[name] = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return out
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) code(t *testing.T) string {
	t.Helper()
	var p struct{ Code string }
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return p.Code
}

func send(t *testing.T, c *http.Client, method, url, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func TestBothPortsServeEverything(t *testing.T) {
	s, _ := open(t, newService(), func(o *server.Options) { o.BasePaths = []string{"/v1/service/sandbox/", "other"} })
	for _, addr := range []string{s.HTTPAddr(), s.GRPCAddr()} {
		for _, prefix := range []string{"", "/v1/service/sandbox", "/other"} {
			base := "http://" + addr + prefix
			for name, c := range httpClients(t) {
				if a := send(t, c, "GET", base+"/sandboxes/sb-1", ""); a.status != 200 {
					t.Errorf("%s %s: %d %s", name, base, a.status, a.body)
				}
				if a := send(t, c, "POST", base+"/sandboxes", `{"image":"x"}`); a.status != 201 || a.header.Get("Location") != "sandboxes/sb-1" {
					t.Errorf("%s %s: %d %s", name, base, a.status, a.body)
				}
			}
			tr := rpc.Transport()
			for _, b := range []string{base, base + "/"} {
				c := rpc.NewClient(b, &http.Client{Transport: tr})
				if sb, err := c.Get(t.Context(), "sb-1"); err != nil || sb.State != flash.Running {
					t.Errorf("gRPC at %s: %v", b, err)
				}
				if _, err := c.Get(t.Context(), "sb-2"); !errors.Is(err, flash.NotFound) {
					t.Errorf("gRPC at %s: %v", b, err)
				}
			}
			tr.CloseIdleConnections()
		}
	}
}

func TestPrefixes(t *testing.T) {
	s, _ := open(t, newService(), func(o *server.Options) {
		o.BasePaths = []string{"/v1/service/sandbox", "/v1", "/", "", " /spaced/ "}
	})
	c := httpClients(t)["HTTP/1.1"]
	for path, status := range map[string]int{
		"/sandboxes/sb-1": 200, "/v1/sandboxes/sb-1": 200, "/v1/service/sandbox/sandboxes/sb-1": 200, "/spaced/healthz": 200,
		"/v1/service/sandboxX/sandboxes/sb-1": 404, "/v1/service/sandboxes/sb-1": 404, "/v1/service/sandbox": 404, "/v1/service/sandbox/": 404,
		"/v1/v1/sandboxes/sb-1": 404, "/v1//sandboxes/sb-1": 404, "/V1/sandboxes/sb-1": 404, "/v1/service/sandbox/sandboxes/a%2fb": 404,
		"/v1/service/sandbox/sandboxes/sb%2D1": 200, "/%761/sandboxes/sb-1": 404,
		"/sandbox.SandboxService/": 404, "/sandbox.SandboxService/a/b": 404, "/sandbox.SandboxService/../healthz": 404, "/sandbox.SandboxService": 404,
	} {
		if a := send(t, c, "GET", "http://"+s.HTTPAddr()+path, ""); a.status != status {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.body, status)
		}
	}
	for _, bad := range []string{"/a/../b", "/a//b", "/a?b", "/a%20b", "/a#b", "/./a"} {
		if _, err := server.New(server.Options{Service: newService(), BasePaths: []string{bad}}); err == nil || !strings.Contains(err.Error(), "FSB_BASE_PATH") {
			t.Errorf("base path %q: %v", bad, err)
		}
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	var log bytes.Buffer
	s, _ := open(t, newService(), func(o *server.Options) { o.Logger = slog.New(slog.NewTextHandler(&syncWriter{w: &log}, nil)) })
	for name, c := range httpClients(t) {
		for _, id := range []string{"panic", "broken"} {
			a := send(t, c, "GET", "http://"+s.HTTPAddr()+"/sandboxes/"+id, "", "X-Request-Id", "find-me")
			if a.status != 500 || a.code(t) != "internal" || a.header.Get("X-Request-Id") != "find-me" || strings.Contains(a.body, "secret") || strings.Contains(a.body, "told") {
				t.Errorf("%s %s: %d %s %v", name, id, a.status, a.body, a.header)
			}
		}
	}
	tr := rpc.Transport()
	defer tr.CloseIdleConnections()
	for _, id := range []flash.ID{"panic", "broken"} {
		_, err := rpc.NewClient("http://"+s.GRPCAddr(), &http.Client{Transport: tr}).Get(t.Context(), id)
		if e := flash.AsError(err); e.Code != flash.Internal || e.Message != "internal error" {
			t.Errorf("gRPC %s: %v", id, err)
		}
	}
	for _, want := range []string{"find-me", "told to", "a secret of the inside", "server_test.go", "level=ERROR"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
}

type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func TestRequestID(t *testing.T) {
	s, _ := open(t, newService())
	c := httpClients(t)["HTTP/1.1"]
	for sent, kept := range map[string]bool{"abc-1:2/3": true, "": false, "has space": false, "<script>": false, strings.Repeat("x", 129): false} {
		for _, path := range []string{"/healthz", "/nothing", "/sandboxes/sb-2"} {
			got := send(t, c, "GET", "http://"+s.HTTPAddr()+path, "", "X-Request-Id", sent).header.Get("X-Request-Id")
			if got == "" || (got == sent) != kept {
				t.Errorf("sent %q, got %q", sent, got)
			}
		}
	}
}

func TestOpenErrors(t *testing.T) {
	s, _ := open(t, newService())
	for _, c := range []struct {
		http, grpc string
		words      []string
	}{
		{s.HTTPAddr(), "", []string{"FSB_HTTP_ADDR", "taken"}},
		{"127.0.0.1:0", s.GRPCAddr(), []string{"FSB_GRPC_ADDR", "taken"}},
		{"no-port", "", []string{"FSB_HTTP_ADDR", "no-port"}},
		{"127.0.0.1:99999", "", []string{"FSB_HTTP_ADDR"}},
		{"192.0.2.1:0", "", []string{"FSB_HTTP_ADDR", "no address"}},
		{"", "", []string{"FSB_HTTP_ADDR", "FSB_GRPC_ADDR"}},
	} {
		other, err := server.New(server.Options{HTTPAddr: c.http, GRPCAddr: c.grpc, Service: newService()})
		if err != nil {
			t.Fatal(err)
		}
		err = other.Open()
		if err == nil {
			t.Fatalf("%q and %q can be opened", c.http, c.grpc)
		}
		for _, w := range c.words {
			if !strings.Contains(flash.AsError(err).Message, w) {
				t.Errorf("%q and %q: %q does not say %q", c.http, c.grpc, err, w)
			}
		}
	}
	one, end := open(t, newService(), func(o *server.Options) { o.GRPCAddr = "" })
	if one.GRPCAddr() != one.HTTPAddr() {
		t.Error("gRPC is not said to be on the only port")
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// Web pages that reach for the daemon are turned away; whoever sends no
// browser's headers is not.
func TestBrowsers(t *testing.T) {
	s, _ := open(t, newService())
	c := httpClients(t)["HTTP/1.1"]
	host := s.HTTPAddr()
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		header []string
		status int
	}{
		{nil, 200},
		{[]string{"Host", "sandboxes.example.com"}, 200}, // behind a proxy, no browser
		{[]string{"Origin", "http://" + host}, 200},
		{[]string{"Origin", "http://" + host, "Sec-Fetch-Site", "same-origin"}, 200},
		{[]string{"Sec-Fetch-Site", "none"}, 200}, // typed into the address bar
		{[]string{"Origin", "https://evil.example"}, 403},
		{[]string{"Origin", "null"}, 403},
		{[]string{"Origin", "http://127.0.0.1:1"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-site"}, 403},
		{[]string{"Host", "localhost:" + port, "Origin", "http://localhost:" + port}, 200},
		// A name of the attacker's that resolves to 127.0.0.1.
		{[]string{"Host", "rebound.example:" + port, "Origin", "http://rebound.example:" + port}, 403},
		{[]string{"Host", "rebound.example:" + port, "Sec-Fetch-Site", "same-origin"}, 403},
	} {
		for _, method := range []string{"GET", "POST"} {
			path, body := "/sandboxes/sb-1", ""
			if method == "POST" {
				path, body = "/sandboxes/sb-1/exec", `{"command":["x"]}`
			}
			a := send(t, c, method, "http://"+host+path, body, x.header...)
			if a.status != x.status {
				t.Errorf("%s with %q: %d %s, want %d", method, x.header, a.status, a.body, x.status)
			}
		}
	}
}

// Numbers are kept by route, never by id.
func TestMetrics(t *testing.T) {
	s, _ := open(t, newService(), func(o *server.Options) { o.Registry = prometheus.NewRegistry() })
	c := httpClients(t)["HTTP/1.1"]
	base := "http://" + s.HTTPAddr()
	for _, path := range []string{"/sandboxes/sb-1", "/sandboxes/sb-2", "/nothing/sb-3", "/sandboxes/../sb-4"} {
		send(t, c, "GET", base+path, "")
	}
	tr := rpc.Transport()
	defer tr.CloseIdleConnections()
	_, _ = rpc.NewClient(base, &http.Client{Transport: tr}).Get(t.Context(), "sb-2")
	text := send(t, c, "GET", base+"/metrics", "").body
	for _, want := range []string{
		`fsb_http_requests_total{route="GET /sandboxes/{id}",status="200"} 1`,
		`fsb_http_requests_total{route="GET /sandboxes/{id}",status="404"} 1`,
		`fsb_http_requests_total{route="other",status="404"} 2`,
		`fsb_http_requests_total{route="/sandbox.SandboxService/GetStatus",status="200"} 1`,
		`fsb_api_errors_total{code="not_found",route="/sandbox.SandboxService/GetStatus"} 1`,
		`fsb_http_request_seconds_count{route="GET /sandboxes/{id}"} 2`,
		"fsb_http_requests_running 1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "sb-") {
		t.Errorf("an id is in the metrics:\n%s", text)
	}
}

// A client that leaves is noticed over every protocol.
func TestClientLeaves(t *testing.T) {
	svc := newService()
	s, _ := open(t, svc)
	leave := func(name string, call func(ctx context.Context)) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); call(ctx) }()
		<-svc.begun
		cancel()
		select {
		case <-svc.left:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: the exec goes on", name)
		}
		<-done
	}
	for name, c := range httpClients(t) {
		leave(name, func(ctx context.Context) {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.HTTPAddr()+"/sandboxes/sb-1/exec", strings.NewReader(`{"command":["wait"]}`))
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := c.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	tr := rpc.Transport()
	defer tr.CloseIdleConnections()
	leave("gRPC", func(ctx context.Context) {
		_, _ = rpc.NewClient("http://"+s.GRPCAddr(), &http.Client{Transport: tr}).Exec(ctx, "sb-1", flash.ExecOptions{Command: []string{"wait"}})
	})
	// One that says nothing more and closes its connection.
	leave("closed connection", func(ctx context.Context) {
		conn, err := net.Dial("tcp", s.HTTPAddr())
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = fmt.Fprint(conn, "POST /sandboxes/sb-1/exec HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"command\":[\"wait\"]}")
		<-ctx.Done()
		_ = conn.Close()
	})
}

func TestDrain(t *testing.T) {
	svc := newService()
	s, end := open(t, svc, func(o *server.Options) { o.DrainDelay = 500 * time.Millisecond })
	clients := httpClients(t)
	base := "http://" + s.HTTPAddr()
	got := make(chan answer, 2)
	for _, c := range clients {
		go func() { got <- send(t, c, "POST", base+"/sandboxes/sb-1/exec", `{"command":["wait"]}`) }()
		<-svc.begun
	}
	if a := send(t, clients["HTTP/1.1"], "GET", base+"/readyz", ""); a.status != 200 {
		t.Fatalf("not ready: %d", a.status)
	}
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	for !s.Draining() {
		time.Sleep(time.Millisecond)
	}
	c := clients["HTTP/1.1"]
	if a := send(t, c, "GET", base+"/readyz", ""); a.status != 503 || a.code(t) != "draining" {
		t.Errorf("readyz: %d %s", a.status, a.body)
	}
	if a := send(t, c, "GET", base+"/healthz", ""); a.status != 200 {
		t.Errorf("healthz: %d", a.status)
	}
	if a := send(t, c, "POST", base+"/sandboxes", `{"image":"x"}`); a.status != 503 || a.code(t) != "draining" {
		t.Errorf("create: %d %s", a.status, a.body)
	}
	tr := rpc.Transport()
	defer tr.CloseIdleConnections()
	if _, err := rpc.NewClient("http://"+s.GRPCAddr(), &http.Client{Transport: tr}).Create(t.Context(), flash.CreateOptions{Image: "x"}); !errors.Is(err, flash.Unavailable) {
		t.Errorf("create over gRPC: %v", err)
	}
	time.Sleep(600 * time.Millisecond) // the ports are closed, the execs go on
	if conn, err := net.Dial("tcp", s.HTTPAddr()); err == nil {
		_ = conn.Close()
		t.Error("the port still takes connections")
	}
	close(svc.release)
	for range clients {
		if a := <-got; a.status != 200 || !strings.Contains(a.body, "done") {
			t.Errorf("an exec under way: %d %s", a.status, a.body)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Bytes that are no HTTP don't disturb the others.
func TestGarbage(t *testing.T) {
	s, _ := open(t, newService())
	for _, raw := range []string{
		"\x00\x01\x02", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://other/sandboxes/sb-1 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET sandboxes HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /sandboxes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
		"POST /sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.HTTPAddr())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
		_, _ = io.WriteString(conn, raw)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
			if resp.StatusCode >= 300 && resp.StatusCode < 400 || resp.StatusCode == 500 {
				t.Errorf("%q: %d", raw, resp.StatusCode)
			}
			_ = resp.Body.Close()
		}
		_ = conn.Close()
	}
	if a := send(t, httpClients(t)["HTTP/1.1"], "GET", "http://"+s.HTTPAddr()+"/healthz", ""); a.status != 200 {
		t.Errorf("healthz afterwards: %d", a.status)
	}
}
