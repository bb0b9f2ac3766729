package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// stub is a service whose every answer is set by the test.
type stub struct {
	flash.Service // nil: what a test has not set panics
	err           error
	sandbox       *flash.Sandbox
	result        *flash.ExecResult
	snapshots     []*flash.Snapshot
	created       flash.CreateOptions
	execed        flash.ExecOptions
	panics        bool
	block         chan struct{} // an exec tells here that it runs, then waits for its context
}

func (s *stub) Get(context.Context, flash.ID) (*flash.Sandbox, error) {
	if s.panics {
		panic("told to")
	}
	return s.sandbox, s.err
}

func (s *stub) Create(_ context.Context, o flash.CreateOptions) (*flash.Sandbox, error) {
	s.created = o
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return s.sandbox, s.err
}

func (s *stub) Exec(ctx context.Context, _ flash.ID, o flash.ExecOptions) (*flash.ExecResult, error) {
	s.execed = o
	if s.block != nil {
		s.block <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.result, s.err
}

func (s *stub) RunPython(context.Context, flash.ID, flash.PythonOptions) (*flash.ExecResult, error) {
	return s.result, s.err
}

func (s *stub) List(context.Context) ([]*flash.Sandbox, error) {
	return []*flash.Sandbox{s.sandbox}, s.err
}
func (s *stub) Snapshots(context.Context) ([]*flash.Snapshot, error)        { return s.snapshots, s.err }
func (s *stub) Backends(context.Context) ([]flash.BackendStatus, error)     { return nil, s.err }
func (s *stub) Images(context.Context) ([]flash.Image, error)               { return nil, s.err }
func (s *stub) Delete(context.Context, flash.ID, flash.DeleteOptions) error { return s.err }

// Every code, with and without a reason, comes out of both clients as it went
// into both servers, and without its hidden cause.
func TestErrorsRoundTrip(t *testing.T) {
	svc := &stub{}
	srv := serve(t, svc)
	rest, rpc := restClient(t, srv.HTTPAddr()), rpcClient(t, "http://"+srv.GRPCAddr())
	for _, code := range flash.Codes {
		for _, want := range []*flash.Error{
			{Code: code, Message: "it went wrong: hei på dæ 100% \"so\"", Origin: flash.OriginServer},
			{Code: code, Reason: "finer_word", Origin: flash.OriginWorker, Message: "it went wrong", Remediation: "do æ; then %20"},
		} {
			hidden := *want
			hidden.Err = errors.New("secret cause")
			svc.err = &hidden
			for name, s := range map[string]flash.Sandboxes{"REST": rest, "RPC": rpc} {
				_, err := s.Get(t.Context(), "sb-1")
				var got *flash.Error
				if !errors.As(err, &got) {
					t.Fatalf("%s: %v is no *flash.Error", name, err)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s %s: (-want +got)\n%s", name, code, d)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("%s %s: the hidden cause got out", name, code)
				}
			}
		}
	}
	svc.err = errors.New("some internal secret")
	for name, s := range map[string]flash.Sandboxes{"REST": rest, "RPC": rpc} {
		_, err := s.Get(t.Context(), "sb-1")
		if e := flash.AsError(err); e.Code != flash.Internal || e.Message != "internal error" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The statuses that published clients act upon.
func TestStatusTable(t *testing.T) {
	want := map[flash.Code][2]int{
		flash.Invalid: {400, 3}, flash.Unauthenticated: {401, 16}, flash.Denied: {403, 7}, flash.NotFound: {404, 5},
		flash.Exists: {409, 6}, flash.Conflict: {409, 9}, flash.Exhausted: {429, 8}, flash.Unsupported: {501, 12},
		flash.Unavailable: {503, 14}, flash.Timeout: {504, 4}, flash.Canceled: {499, 1}, flash.Internal: {500, 13},
	}
	for _, c := range flash.Codes {
		if got := [2]int{api.HTTPStatus(c), int(api.RPC(c))}; got != want[c] {
			t.Errorf("%s: %v, want %v", c, got, want[c])
		}
		if !api.Known(c) {
			t.Errorf("%s is not known", c)
		}
		if got := api.FromRPC(api.RPC(c)); got != c {
			t.Errorf("RPC code of %s is read as %s", c, got)
		}
		if got := api.FromHTTPStatus(api.HTTPStatus(c)); got != c && c != flash.Exists {
			t.Errorf("HTTP status of %s is read as %s", c, got)
		}
	}
	if c := flash.Code("new"); api.HTTPStatus(c) != 500 || api.RPC(c) != 13 || api.Known(c) {
		t.Error("an unknown code is not internal")
	}
}

// Published clients find what they look for in an error.
func TestProblemForPublishedClients(t *testing.T) {
	svc := &stub{err: flash.SandboxNotFound("sb-1", "it was deleted")}
	srv := serve(t, svc)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+srv.HTTPAddr()+"/sandboxes/sb-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", "mine-1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "about:blank", "title": "Not Found", "status": 404.0, "detail": "sandbox sb-1 does not exist: it was deleted",
		"code": "sandbox_not_found", "kind": "not_found", "message": "sandbox sb-1 does not exist: it was deleted",
		"origin": "worker", "outcome": "not_dispatched", "request_id": "mine-1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if resp.StatusCode != 404 || resp.Header.Get("Content-Type") != "application/problem+json" || resp.Header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("status %d, header %v", resp.StatusCode, resp.Header)
	}
}

// Whatever a sandbox is, REST brings it over unchanged, by itself and in the list.
func TestSandboxRoundTrip(t *testing.T) {
	svc := &stub{}
	c := restClient(t, serve(t, svc).HTTPAddr())
	moment := rapid.Custom(func(r *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(1, 4e9).Draw(r, "s"), rapid.Int64Range(0, 999999999).Draw(r, "ns")).UTC()
	})
	rapid.Check(t, func(r *rapid.T) {
		want := &flash.Sandbox{
			ID: flash.ID(rapid.StringMatching(`[a-z0-9][A-Za-z0-9_-]{0,50}`).Draw(r, "id")), State: rapid.SampledFrom(flash.States).Draw(r, "state"),
			Backend: rapid.String().Draw(r, "backend"), Image: rapid.String().Draw(r, "image"), Digest: rapid.String().Draw(r, "digest"),
			Command: rapid.SliceOf(rapid.String()).Draw(r, "command"), Env: rapid.MapOf(rapid.String(), rapid.String()).Draw(r, "env"),
			MemoryMB: rapid.Int64().Draw(r, "memory"), CPUCores: rapid.Float64Range(0, 1e6).Draw(r, "cpu"),
			CreatedAt: moment.Draw(r, "created"), ReadyAt: moment.Draw(r, "ready"), Restored: flash.ID(rapid.String().Draw(r, "restored")),
			Metadata: map[string]any{rapid.String().Draw(r, "key"): rapid.String().Draw(r, "value"), "n": rapid.Float64Range(-1e300, 1e300).Draw(r, "n")},
		}
		if rapid.Bool().Draw(r, "ended") {
			want.Ending = &flash.Ending{Cause: flash.CauseOOM, ExitCode: rapid.IntRange(-1, 255).Draw(r, "exit"), Message: rapid.String().Draw(r, "message")}
		}
		svc.sandbox = want
		got, err := c.Get(t.Context(), want.ID)
		if err != nil {
			r.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			r.Fatalf("(-want +got)\n%s", d)
		}
		list, err := c.List(t.Context())
		if err != nil || len(list) != 1 {
			r.Fatal(list, err)
		}
		if d := cmp.Diff(want, list[0], cmpopts.EquateEmpty()); d != "" {
			r.Fatalf("(-want +got)\n%s", d)
		}
	})
}

// Create options arrive at the service as the client was given them.
func TestCreateRoundTrip(t *testing.T) {
	svc := &stub{sandbox: &flash.Sandbox{ID: "sb-1", State: flash.Running}}
	srv := serve(t, svc)
	want := flash.CreateOptions{
		ID: "own", Type: "firecracker", Image: "", Command: []string{"a", ""}, MemoryMB: 7, CPUCores: 0.25,
		SnapshotPath: "/s", MemFilePath: "/m", KernelImage: "/k", InitrdPath: "/i", Metadata: map[string]any{"a": "b"},
	}
	if _, err := restClient(t, srv.HTTPAddr()).Create(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, svc.created, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("REST: %s", d)
	}
	want = flash.CreateOptions{Type: "docker", Image: "x", Command: []string{"a", ""}, MemoryMB: 512, CPUCores: 0.25}
	if _, err := rpcClient(t, "http://"+srv.GRPCAddr()).Create(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, svc.created, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("RPC: %s", d)
	}
}

// Output far beyond a gRPC message still arrives, cut and as valid text.
func TestRPCOutputFitsAMessage(t *testing.T) {
	svc := &stub{result: &flash.ExecResult{
		Stdout: bytes.Repeat([]byte{0xff}, 8<<20), Stderr: []byte(strings.Repeat("æ", 4<<20)), Ending: flash.Ending{Cause: flash.CauseExited},
	}}
	srv := serve(t, svc)
	c := rpcClient(t, "http://"+srv.GRPCAddr())
	res, err := c.Exec(t.Context(), "sb-1", flash.ExecOptions{Command: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(res.Stdout) + len(res.Stderr); n > 4<<20-1024 || n < 3<<20 {
		t.Errorf("%d bytes", n)
	}
	for _, b := range [][]byte{res.Stdout, res.Stderr} {
		if !bytes.Contains(b, []byte("bytes cut here: a gRPC reply holds 4 MiB")) {
			t.Errorf("the cut is not said in %d bytes", len(b))
		}
	}
	svc.result.Stderr = []byte("small")
	if res, err = c.Exec(t.Context(), "sb-1", flash.ExecOptions{Command: []string{"x"}}); err != nil || string(res.Stderr) != "small" {
		t.Errorf("stderr %.20q, %v", res.Stderr, err)
	}
	svc.result.Ending.ExitCode = 1
	if res, err = c.RunPython(t.Context(), "sb-1", flash.PythonOptions{Code: "x"}); err != nil || !bytes.HasSuffix(res.Stdout, []byte("small")) {
		t.Error(err)
	}
}
