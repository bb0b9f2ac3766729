package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/server"
)

// FuzzRequest sends whatever parses as a request: the answer is never a
// redirect or an internal error, and an error is a problem document.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET /sandboxes/sb-1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/service/sandbox/sandboxes/sb-1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: 41\r\n\r\n{\"image\":\"x\",\"memory_mb\":512.0,\"a\":[null]}",
		"POST /sandboxes/sb-1/exec HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{\"command\":\"ls\"}",
		"DELETE /sandboxes/sb-1?cleanup=false HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /sandboxes/..%2f..%2fetc/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET //sandboxes/./../%00 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /sandboxes/%2f%2F/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT a.b:80 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://[::1]:8080/status?sandboxes=%zz HTTP/1.1\r\nHost: x\r\nOrigin: null\r\n\r\n",
		"GET /warm-demands HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site\r\n\r\n",
		"POST /sandbox.SandboxService/GetStatus HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"id\":\"sb-1\"}",
		"POST /sandbox.SandboxService/ExecCommand HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nTe: trailers\r\nContent-Length: 5\r\n\r\n\x00\x00\x00\x00\x00",
		"PUT /templates/x HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	s, err := server.New(server.Options{Service: quiet{newService()}, BasePaths: []string{"/v1/service/sandbox"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil { // a client that broke off gets no answer anyway
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, r.WithContext(t.Context()))
		if rec.Code == 500 || rec.Code >= 300 && rec.Code < 400 {
			t.Fatalf("%s %q: %d %s", r.Method, r.RequestURI, rec.Code, rec.Body)
		}
		if rec.Header().Get("X-Request-Id") == "" {
			t.Fatal("no request id")
		}
		if rec.Header().Get("Content-Type") == "application/problem+json" {
			var p struct {
				Status        int
				Code, Message string
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p.Status != rec.Code || p.Code == "" || p.Message == "" {
				t.Fatalf("%v: %s", err, rec.Body)
			}
		}
	})
}

// quiet is a service that does nothing and never fails by itself.
type quiet struct{ *service }

func (q quiet) Get(_ context.Context, id flash.ID) (*flash.Sandbox, error) {
	return &flash.Sandbox{ID: id, State: flash.Running}, nil
}

func (q quiet) Create(_ context.Context, o flash.CreateOptions) (*flash.Sandbox, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &flash.Sandbox{ID: "sb-1"}, nil
}

func (q quiet) Exec(_ context.Context, _ flash.ID, o flash.ExecOptions) (*flash.ExecResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &flash.ExecResult{Stdout: []byte(strings.Join(o.Command, " "))}, nil
}

func (q quiet) RunPython(_ context.Context, _ flash.ID, o flash.PythonOptions) (*flash.ExecResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &flash.ExecResult{Stdout: []byte(o.Code)}, nil
}

func (quiet) Delete(context.Context, flash.ID, flash.DeleteOptions) error { return nil }
func (quiet) Resume(context.Context, flash.ID) error                      { return nil }
func (quiet) DeleteSnapshot(context.Context, flash.ID) error              { return nil }
func (quiet) Snapshot(context.Context, flash.ID) (*flash.Snapshot, error) {
	return &flash.Snapshot{}, nil
}
func (quiet) Metrics(context.Context, flash.ID) (*flash.Metrics, error) { return &flash.Metrics{}, nil }
func (quiet) PlatformInfo(context.Context, flash.ID) (*flash.PlatformInfo, error) {
	return &flash.PlatformInfo{}, nil
}
func (quiet) List(context.Context) ([]*flash.Sandbox, error)          { return nil, nil }
func (quiet) Snapshots(context.Context) ([]*flash.Snapshot, error)    { return nil, nil }
func (quiet) Images(context.Context) ([]flash.Image, error)           { return nil, nil }
func (quiet) Backends(context.Context) ([]flash.BackendStatus, error) { return nil, nil }
