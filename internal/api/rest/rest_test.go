package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
	"github.com/flash-sandbox/flash-sandbox/internal/api/rest"
)

var update = flag.Bool("update", false, "rewrite golden files")

// service remembers what it was asked and answers with little.
type service struct {
	flash.Service
	create  *flash.CreateOptions
	exec    *flash.ExecOptions
	python  *flash.PythonOptions
	deleted *flash.DeleteOptions
	result  flash.ExecResult
	calls   int
}

const id = flash.ID("sb-1")

func (s *service) check(got flash.ID) error {
	s.calls++
	if got != id {
		return flash.SandboxNotFound(got, "")
	}
	return nil
}

func (s *service) Create(_ context.Context, o flash.CreateOptions) (*flash.Sandbox, error) {
	s.create = &o
	s.calls++
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return s.sandbox(), nil
}

func (s *service) sandbox() *flash.Sandbox {
	return &flash.Sandbox{
		ID: id, State: flash.Running, Backend: "gvisor", Image: "alpine:latest", MemoryMB: 512, CPUCores: 1.5,
		CreatedAt: time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC), ReadyAt: time.Date(2026, 11, 24, 15, 0, 0, 250e6, time.UTC),
	}
}

func (s *service) Get(_ context.Context, got flash.ID) (*flash.Sandbox, error) {
	return s.sandbox(), s.check(got)
}

func (s *service) Delete(_ context.Context, got flash.ID, o flash.DeleteOptions) error {
	s.deleted = &o
	return s.check(got)
}

func (s *service) Exec(_ context.Context, got flash.ID, o flash.ExecOptions) (*flash.ExecResult, error) {
	s.exec = &o
	if err := s.check(got); err != nil {
		return nil, err
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &s.result, nil
}

func (s *service) RunPython(_ context.Context, got flash.ID, o flash.PythonOptions) (*flash.ExecResult, error) {
	s.python = &o
	return &s.result, s.check(got)
}

func (s *service) PlatformInfo(_ context.Context, got flash.ID) (*flash.PlatformInfo, error) {
	return &flash.PlatformInfo{SandboxID: string(got), System: "Linux"}, s.check(got)
}

func (s *service) Metrics(_ context.Context, got flash.ID) (*flash.Metrics, error) {
	return &flash.Metrics{MemoryUsageBytes: 1 << 60, CPUPercent: 12.5}, s.check(got)
}

func (s *service) Snapshot(_ context.Context, got flash.ID) (*flash.Snapshot, error) {
	return snapshot(), s.check(got)
}

func snapshot() *flash.Snapshot {
	return &flash.Snapshot{ID: "sn-1", SandboxID: id, SnapshotPath: "/data/sn-1/state", MemFilePath: "/data/sn-1/pages", Memory: true, SizeBytes: 42}
}

func (s *service) Resume(_ context.Context, got flash.ID) error { return s.check(got) }

func (s *service) List(context.Context) ([]*flash.Sandbox, error) {
	paused := s.sandbox()
	paused.State = flash.Paused
	return []*flash.Sandbox{s.sandbox(), paused}, nil
}

func (s *service) Snapshots(context.Context) ([]*flash.Snapshot, error) {
	return []*flash.Snapshot{snapshot()}, nil
}

func (s *service) DeleteSnapshot(_ context.Context, got flash.ID) error {
	if got != "sn-1" {
		return &flash.Error{Code: flash.NotFound, Reason: "snapshot_not_found", Message: "no such snapshot"}
	}
	return nil
}
func (s *service) Images(context.Context) ([]flash.Image, error) { return nil, nil }
func (s *service) Backends(context.Context) ([]flash.BackendStatus, error) {
	return []flash.BackendStatus{{Name: "gvisor", Available: true}, {Name: "docker", Reason: "no engine answers"}}, nil
}

// do sends a request as published clients do: without a Content-Type, unless
// the body is JSON.
func do(t *testing.T, h http.Handler, method, target, body string) *http.Response {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, target, r))
	return rec.Result()
}

func read(t *testing.T, resp *http.Response) map[string]any {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return m
}

func TestCreate(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       flash.CreateOptions
	}{
		{"0.1.1", `{"type":"docker","image":"x","command":[],"memory_mb":512,"cpu_cores":1.0}`,
			flash.CreateOptions{Type: "docker", Image: "x", Command: []string{}, MemoryMB: 512, CPUCores: 1}},
		{"floats for ints", `{"image":"x","memory_mb":512.0}`, flash.CreateOptions{Image: "x", MemoryMB: 512}},
		{"exponents", `{"image":"x","memory_mb":5.12e2,"cpu_cores":1e-1}`, flash.CreateOptions{Image: "x", MemoryMB: 512, CPUCores: .1}},
		{"nulls", `{"image":"x","type":null,"command":null,"memory_mb":null,"cpu_cores":null,"env":null,"metadata":null,"id":null,"ttl_seconds":null,"gpu":null,"snapshot_path":null}`, flash.CreateOptions{Image: "x"}},
		{"unknown members", ` {"image":"x","colour":{"deep":[1,2,{}]},"Image":"y"} `, flash.CreateOptions{Image: "x"}},
		{"twice", `{"image":"y","image":"x"}`, flash.CreateOptions{Image: "x"}},
		{"shell command", `{"image":"x","command":"echo $HOME"}`, flash.CreateOptions{Image: "x", Command: []string{"sh", "-c", "echo $HOME"}}},
		{"empty later members", `{"image":"x","gpu":{},"bind_mounts":[],"ttl_seconds":0,"ephemeral":false,"template":"","vcpu_count":0.0,"operation_id":"abc"}`, flash.CreateOptions{Image: "x"}},
		{"requests like limits", `{"image":"x","memory_mb":512,"memory_request_mb":512,"cpu_cores":1,"cpu_request_cores":1}`, flash.CreateOptions{Image: "x", MemoryMB: 512, CPUCores: 1}},
		{"everything", `{"id":"own","type":"t","image":"x","command":["a","b c"],"env":{"A":"1"},"kernel_image":"/k","initrd_path":"/i","metadata":{"n":12345678901234567890}}`,
			flash.CreateOptions{ID: "own", Type: "t", Image: "x", Command: []string{"a", "b c"}, Env: map[string]string{"A": "1"}, KernelImage: "/k", InitrdPath: "/i",
				Metadata: map[string]any{"n": json.Number("12345678901234567890")}}},
		{"snapshot paths", `{"image":"","snapshot_path":"/s","mem_file_path":"/m"}`, flash.CreateOptions{SnapshotPath: "/s", MemFilePath: "/m"}},
		{"snapshot handle", `{"image":"","snapshot_node_id":"sn-1"}`, flash.CreateOptions{SnapshotPath: "/data/sn-1/state", MemFilePath: "/data/sn-1/pages"}},
		{"snapshot both", `{"image":"","snapshot_node_id":"sn-1","snapshot_path":"/data/sn-1/state"}`, flash.CreateOptions{SnapshotPath: "/data/sn-1/state"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := &service{}
			resp := do(t, rest.New(svc, rest.Options{}), "POST", "/sandboxes", c.body)
			got := read(t, resp)
			if resp.StatusCode != 201 {
				t.Fatalf("%d: %v", resp.StatusCode, got)
			}
			if d := cmp.Diff(&c.want, svc.create); d != "" {
				t.Error(d)
			}
			if loc := resp.Header.Get("Location"); loc != "sandboxes/sb-1" || got["id"] != "sb-1" || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("location %q, id %v, header %v", loc, got["id"], resp.Header)
			}
		})
	}
}

func TestBadBodies(t *testing.T) {
	deep := strings.Repeat("[", 20000)
	for _, c := range []struct {
		name, target, body string
		status             int
		word               string
	}{
		{"nothing", "/sandboxes", "", 400, "image"},
		{"empty object", "/sandboxes", "{}", 400, "image"},
		{"null", "/sandboxes", "null", 400, "image"},
		{"list", "/sandboxes", "[]", 400, "a list"},
		{"string", "/sandboxes", `"x"`, 400, "a string"},
		{"cut off", "/sandboxes", `{"image":"x"`, 400, "JSON"},
		{"two objects", "/sandboxes", `{"image":"x"}{}`, 400, "JSON"},
		{"form", "/sandboxes", "image=x", 400, "JSON"},
		{"bad UTF-8", "/sandboxes", "{\"image\":\"\xff\"}", 400, "UTF-8"},
		{"too deep", "/sandboxes", `{"image":"x","metadata":` + deep, 400, "metadata"},
		{"too deep, ignored", "/sandboxes", `{"image":"x","a":` + deep + strings.Repeat("]", 20000) + "}", 400, "depth"},
		{"image number", "/sandboxes", `{"image":1}`, 400, "image: is a number"},
		{"type list", "/sandboxes", `{"image":"x","type":[]}`, 400, "type: is a list"},
		{"NaN", "/sandboxes", `{"image":"x","cpu_cores":NaN}`, 400, "cpu_cores: NaN"},
		{"Infinity", "/sandboxes", `{"image":"x","cpu_cores":-Infinity}`, 400, "cpu_cores: Infinity"},
		{"1e400", "/sandboxes", `{"image":"x","cpu_cores":1e400}`, 400, "cpu_cores: is out of range"},
		{"1e400 MiB", "/sandboxes", `{"image":"x","memory_mb":1e400}`, 400, "memory_mb: is out of range"},
		{"string number", "/sandboxes", `{"image":"x","memory_mb":"512"}`, 400, "memory_mb: is a string"},
		{"string cores", "/sandboxes", `{"image":"x","cpu_cores":"1"}`, 400, "cpu_cores: is a string"},
		{"half", "/sandboxes", `{"image":"x","memory_mb":512.5}`, 400, "memory_mb: is 512.5"},
		{"2^63", "/sandboxes", `{"image":"x","memory_mb":9223372036854775808}`, 400, "memory_mb: is out of range"},
		{"2^63 as float", "/sandboxes", `{"image":"x","memory_mb":9.223372036854775808e18}`, 400, "memory_mb: is out of range"},
		{"-2^64", "/sandboxes", `{"image":"x","memory_mb":-18446744073709551616.0}`, 400, "memory_mb: is out of range"},
		{"true", "/sandboxes", `{"image":"x","memory_mb":true}`, 400, "memory_mb: is a boolean"},
		{"command object", "/sandboxes", `{"image":"x","command":{}}`, 400, "command: is an object"},
		{"command of numbers", "/sandboxes", `{"image":"x","command":["sleep",1]}`, 400, "command: element 1 is a number"},
		{"command with null", "/sandboxes", `{"image":"x","command":["sleep",null]}`, 400, "command: element 1 is null"},
		{"env list", "/sandboxes", `{"image":"x","env":["A=b"]}`, 400, "env: is a list"},
		{"env number", "/sandboxes", `{"image":"x","env":{"A":1}}`, 400, `env: the value of "A"`},
		{"metadata string", "/sandboxes", `{"image":"x","metadata":"a"}`, 400, "metadata: is a string"},
		{"bad id", "/sandboxes", `{"image":"x","id":"../x"}`, 400, "id:"},
		{"ttl", "/sandboxes", `{"image":"x","ttl_seconds":60}`, 501, "ttl_seconds: is not supported"},
		{"gpu", "/sandboxes", `{"image":"x","gpu":{"driver":"nvidia"}}`, 501, "gpu"},
		{"setup", "/sandboxes", `{"image":"x","setup":{"commands":[]},"operation_id":"a"}`, 501, "setup"},
		{"template", "/sandboxes", `{"template":"t"}`, 501, "template"},
		{"big ttl", "/sandboxes", `{"image":"x","ttl_seconds":1e999}`, 501, "ttl_seconds"},
		{"other request", "/sandboxes", `{"image":"x","memory_mb":512,"memory_request_mb":256}`, 501, "memory_request_mb"},
		{"other snapshot", "/sandboxes", `{"snapshot_node_id":"sn-1","snapshot_path":"/x"}`, 400, "snapshot_node_id"},
		{"no snapshot", "/sandboxes", `{"snapshot_node_id":"sn-2"}`, 400, "snapshot_node_id"},
		{"no command", "/sandboxes/sb-1/exec", "", 400, "command"},
		{"empty command", "/sandboxes/sb-1/exec", `{"command":[]}`, 400, "command"},
		{"empty string", "/sandboxes/sb-1/exec", `{"command":""}`, 400, "command"},
		{"NUL", "/sandboxes/sb-1/exec", `{"command":["a","b\u0000"]}`, 400, "command: element 1 holds a NUL"},
		{"timeout", "/sandboxes/sb-1/exec", `{"command":["a"],"timeout_ms":"1"}`, 400, "timeout_ms"},
		{"long timeout", "/sandboxes/sb-1/exec", `{"command":["a"],"timeout_ms":9223372036854775807}`, 400, "timeout_ms: is out of range"},
		{"negative timeout", "/sandboxes/sb-1/exec", `{"command":["a"],"timeout_ms":-1}`, 400, "timeout_ms"},
		{"both", "/sandboxes/sb-1/exec", `{"command":["a"],"script":"b"}`, 400, "script"},
		{"code", "/sandboxes/sb-1/run_python", `{"code":["print(1)"]}`, 400, "code: is a list"},
		{"huge", "/sandboxes", `{"image":"` + strings.Repeat("x", rest.MaxBody) + `"}`, 413, "4 MiB"},
		{"huge for nothing", "/sandboxes/sb-1/resume", strings.Repeat("x", rest.MaxBody+1), 413, "4 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := &service{}
			resp := do(t, rest.New(svc, rest.Options{}), "POST", c.target, c.body)
			got := read(t, resp)
			message, _ := got["message"].(string)
			if resp.StatusCode != c.status || !strings.Contains(message, c.word) || len(message) > 300 {
				t.Errorf("%d %q, want %d and %q", resp.StatusCode, message, c.status, c.word)
			}
			if resp.Header.Get("Content-Type") != api.ProblemType || got["outcome"] != api.OutcomeNotDispatched || got["status"] != float64(c.status) {
				t.Errorf("header %v, body %v", resp.Header, got)
			}
		})
	}
}

func TestExec(t *testing.T) {
	svc := &service{result: flash.ExecResult{
		Stdout: []byte("a\x00\x1f\"\\\n\xff\xfe\u0085\u2028æ<&>\xc3"), Stderr: []byte("e"), StdoutDropped: 7,
		Ending: flash.Ending{Cause: flash.CauseTimeout, ExitCode: 124, Message: "killed: its deadline has passed"}, Duration: 1500 * time.Microsecond,
	}}
	h := rest.New(svc, rest.Options{})
	want := map[string]any{
		"stdout": "a\x00\x1f\"\\\n\uFFFD\uFFFD\u0085\u2028æ<&>\uFFFD", "stderr": "e", "exit_code": 124.0, "duration_ms": 1.5,
		"error": "killed: its deadline has passed", "message": "killed: its deadline has passed", "cause": "timeout",
		"truncated": true, "stdout_dropped_bytes": 7.0, "stderr_dropped_bytes": 0.0,
	}
	resp := do(t, h, "POST", "/sandboxes/sb-1/exec", `{"command":["a"],"timeout_ms":2.5e3,"metadata":[1]}`)
	if got := read(t, resp); resp.StatusCode != 200 || cmp.Diff(want, got) != "" {
		t.Errorf("%d %s", resp.StatusCode, cmp.Diff(want, got))
	}
	if d := cmp.Diff(&flash.ExecOptions{Command: []string{"a"}, Timeout: 2500 * time.Millisecond}, svc.exec); d != "" {
		t.Error(d)
	}
	for body, command := range map[string][]string{
		`{"command":"echo $A"}`: {"sh", "-c", "echo $A"}, `{"script":"ls | wc"}`: {"sh", "-c", "ls | wc"}, `{"command":["a b"]}`: {"a b"},
		`{"command":[],"script":"x"}`: {"sh", "-c", "x"},
	} {
		if resp := do(t, h, "POST", "/sandboxes/sb-1/exec", body); resp.StatusCode != 200 || cmp.Diff(command, svc.exec.Command) != "" {
			t.Errorf("%s: %d, %q", body, resp.StatusCode, svc.exec.Command)
		}
	}

	want["result"] = want["stdout"].(string) + "e" // failed
	got := read(t, do(t, h, "POST", "/sandboxes/sb-1/run_python", `{"code":"print(1)"}`))
	if d := cmp.Diff(want, got); d != "" || svc.python.Code != "print(1)" {
		t.Error(d)
	}
	svc.result = flash.ExecResult{Stdout: []byte("out"), Stderr: []byte("warning"), Ending: flash.Ending{Cause: flash.CauseExited, Message: "command not found"}}
	if got := read(t, do(t, h, "POST", "/sandboxes/sb-1/run_python", `{}`)); got["result"] != "out" || got["error"] != "" || got["stderr"] != "warning" {
		t.Errorf("got %v", got)
	}
}

func TestExecAccept(t *testing.T) {
	for accept, status := range map[string]int{
		"": 200, "*/*": 200, "application/json": 200, "text/html": 200, "text/event-stream, */*;q=0.1": 200, "text/event-stream": 501, "Text/Event-Stream;q=0.9": 501,
	} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/sandboxes/sb-1/exec", strings.NewReader(`{"command":["a"]}`))
		r.Header.Set("Accept", accept)
		rec := httptest.NewRecorder()
		rest.New(&service{}, rest.Options{}).ServeHTTP(rec, r)
		if rec.Code != status {
			t.Errorf("Accept %q: %d, want %d", accept, rec.Code, status)
		}
	}
}

func TestReplies(t *testing.T) {
	ready := error(nil)
	svc := &service{}
	h := rest.New(svc, rest.Options{Node: "n1", Ready: func(context.Context) error { return ready }, Metrics: http.NotFoundHandler()})
	type object = map[string]any
	sandbox := object{
		"id": "sb-1", "status": "running", "lifecycle_state": "running", "node_id": "n1", "backend": "gvisor", "type": "gvisor", "image": "alpine:latest",
		"command": []any{}, "created_at": "2026-11-24T15:00:00Z", "ready_at": "2026-11-24T15:00:00.25Z", "memory_mb": 512.0, "cpu_cores": 1.5, "vcpu_count": 2.0,
		"memory_request_mb": 512.0, "cpu_request_cores": 1.5, "ttl_seconds": 0.0, "ephemeral": false, "expose_ports": []any{}, "routing_epoch": 0.0,
		"resident_memory_bytes": 0.0, "duration_ms": 250.0, "fork_duration_ms": 0.0, "operation_id": "",
	}
	paused := object{}
	for k, v := range sandbox {
		paused[k] = v
	}
	paused["status"], paused["lifecycle_state"] = "paused", "paused"
	lifecycle := object{"pending_booting": 0.0, "pending_setup": 0.0, "running": 1.0, "tearing_down": 0.0}
	status := func(word string, available float64) object {
		return object{"node_count": 1.0, "available_node_count": available, "unavailable_node_count": 1 - available, "sandbox_count": 2.0, "sandbox_lifecycle": lifecycle,
			"nodes": []any{object{"id": "n1", "status": word, "available": available == 1, "backend_types": []any{"gvisor"}, "running_count": 1.0, "last_heartbeat_ago": "0s", "sandbox_lifecycle": lifecycle}}}
	}
	full := status("ready", 1)
	full["sandboxes"] = []any{sandbox, paused}
	snap := object{
		"snapshot_path": "/data/sn-1/state", "mem_file_path": "/data/sn-1/pages", "node_id": "sn-1", "id": "sn-1", "sandbox_id": "sb-1", "backend": "",
		"memory": true, "size_bytes": 42.0, "snapshot_size_bytes": 42.0, "detail": "", "created_at": "",
	}
	for _, c := range []struct {
		method, target string
		status         int
		want           object
	}{
		{"GET", "/sandboxes/sb-1", 200, sandbox},
		{"DELETE", "/sandboxes/sb-1", 204, nil},
		{"DELETE", "/sandboxes/sb-1?cleanup=false", 204, nil},
		{"GET", "/sandboxes/sb-1/metrics", 200, object{"memory_usage_bytes": float64(1 << 60), "memory_limit_bytes": 0.0, "memory_percent": 0.0, "cpu_percent": 12.5,
			"pids_current": 0.0, "net_rx_bytes": 0.0, "net_tx_bytes": 0.0, "block_read_bytes": 0.0, "block_write_bytes": 0.0}},
		{"POST", "/sandboxes/sb-1/snapshot", 200, snap},
		{"POST", "/sandboxes/sb-1/resume", 204, nil},
		{"POST", "/sandboxes/sb-1/resume?in_place=true", 204, nil},
		{"GET", "/status", 200, status("ready", 1)},
		{"GET", "/status?sandboxes=true", 200, full},
		{"GET", "/snapshots", 200, object{"snapshots": []any{snap}}},
		{"DELETE", "/snapshots/sn-1", 204, nil},
		{"GET", "/images", 200, object{"images": []any{}}},
		{"GET", "/backends", 200, object{"backends": []any{
			object{"name": "gvisor", "available": true, "isolation": "", "capabilities": []any{}},
			object{"name": "docker", "available": false, "reason": "no engine answers", "isolation": "", "capabilities": []any{}}}}},
		{"GET", "/healthz", 200, object{"status": "ok"}},
		{"GET", "/readyz", 200, object{"status": "ready"}},
	} {
		resp := do(t, h, c.method, c.target, "")
		if got := read(t, resp); resp.StatusCode != c.status || cmp.Diff(c.want, got) != "" {
			t.Errorf("%s %s: %d %s", c.method, c.target, resp.StatusCode, cmp.Diff(c.want, got))
		}
	}
	if !svc.deleted.Keep {
		t.Error("cleanup=false is lost")
	}

	// A client parses the info itself.
	var p flash.PlatformInfo
	info, _ := read(t, do(t, h, "GET", "/sandboxes/sb-1/platform_info", ""))["info"].(string)
	if err := json.Unmarshal([]byte(info), &p); err != nil || p.System != "Linux" {
		t.Errorf("info %q: %v", info, err)
	}

	ready = &flash.Error{Code: flash.Unavailable, Reason: "draining", Message: "going"}
	if resp := do(t, h, "GET", "/readyz", ""); resp.StatusCode != 503 || read(t, resp)["code"] != "draining" {
		t.Errorf("readyz while draining: %d", resp.StatusCode)
	}
	if d := cmp.Diff(status("draining", 0), read(t, do(t, h, "GET", "/status", ""))); d != "" {
		t.Error(d)
	}
	ready = errors.New("x")
	if resp := do(t, h, "GET", "/healthz", ""); resp.StatusCode != 200 {
		t.Errorf("healthz: %d", resp.StatusCode)
	}
}

func TestRouting(t *testing.T) {
	h := rest.New(&service{}, rest.Options{})
	for _, c := range []struct {
		method, target string
		status         int
		code           string
	}{
		{"GET", "/", 404, "route_not_found"},
		{"GET", "/nothing", 404, "route_not_found"},
		{"GET", "/sandboxes/", 404, "route_not_found"},
		{"POST", "/sandboxes/", 404, "route_not_found"},
		{"GET", "/sandboxes//metrics", 404, "route_not_found"},
		{"GET", "/sandboxes/sb-1/", 404, "route_not_found"},
		{"POST", "//sandboxes", 404, "route_not_found"},
		{"POST", "/./sandboxes", 404, "route_not_found"},
		{"GET", "/sandboxes/..", 404, "route_not_found"},
		{"GET", "/sandboxes/../status", 404, "route_not_found"},
		{"GET", "/sandboxes/sb-1/../sb-2", 404, "route_not_found"},
		{"GET", "/sandboxes/sb-1/nothing", 404, "route_not_found"},
		{"GET", "/warm-demands", 404, "route_not_found"},
		{"GET", "/sandboxes/%2e%2e", 404, "sandbox_not_found"},
		{"GET", "/sandboxes/a%2fb", 404, "sandbox_not_found"},
		{"GET", "/sandboxes/%2f", 404, "route_not_found"},
		{"POST", "/sandboxes/%2e%2e%2fetc/exec", 404, "sandbox_not_found"},
		{"GET", "/sandboxes/%00", 404, "sandbox_not_found"},
		{"GET", "/sandboxes/sb-1%00", 404, "sandbox_not_found"},
		{"GET", "/sandboxes/%ff", 404, "sandbox_not_found"},
		{"GET", "/sandboxes/" + strings.Repeat("x", 5000), 404, "sandbox_not_found"},
		{"GET", "/sandboxes/sb-2", 404, "sandbox_not_found"},
		{"DELETE", "/snapshots/sn-2", 404, "snapshot_not_found"},
		{"DELETE", "/snapshots/%2e%2e", 404, "snapshot_not_found"},
		{"GET", "/sandboxes", 405, "method_not_allowed"},
		{"PUT", "/sandboxes/sb-1", 405, "method_not_allowed"},
		{"POST", "/sandboxes/sb-1", 405, "method_not_allowed"},
		{"GET", "/sandboxes/sb-1/exec", 405, "method_not_allowed"},
		{"DELETE", "/healthz", 405, "method_not_allowed"},
		{"FLY", "/status", 405, "method_not_allowed"},
		{"DELETE", "/sandboxes/sb-1?cleanup=maybe", 400, "invalid"},
		{"GET", "/status?sandboxes=1.5", 400, "invalid"},
		{"POST", "/sandboxes/sb-1/shell", 501, "unsupported"},
		{"PUT", "/sandboxes/sb-1/files", 501, "unsupported"},
		{"GET", "/sandboxes/sb-1/agent/fs/stat?path=/", 501, "unsupported"},
		{"GET", "/templates", 501, "unsupported"},
		{"PUT", "/warm-demands/train%2Fer/batch%2043", 501, "unsupported"},
	} {
		resp := do(t, h, c.method, c.target, "")
		got := read(t, resp)
		if resp.StatusCode != c.status || got["code"] != c.code {
			t.Errorf("%s %.60s: %d %v, want %d %s", c.method, c.target, resp.StatusCode, got["code"], c.status, c.code)
		}
		if allow := resp.Header.Get("Allow"); (allow != "") != (c.status == 405) {
			t.Errorf("%s %s: Allow %q", c.method, c.target, allow)
		}
	}
	if allow := do(t, h, "PUT", "/sandboxes/sb-1", "").Header.Get("Allow"); allow != "DELETE, GET, HEAD" {
		t.Errorf("Allow %q", allow)
	}
	if resp := do(t, h, "HEAD", "/sandboxes/sb-1", ""); resp.StatusCode != 200 {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
}

// The description is a golden file, so that a change of the wire shows in
// review. "go test -update" rewrites it.
func TestOpenAPI(t *testing.T) {
	h := rest.New(&service{}, rest.Options{Version: "0"})
	resp := do(t, h, "GET", "/openapi.json", "")
	doc := read(t, resp)
	got, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); d != "" {
		t.Errorf("%s has changed, run go test -update if it should: (-want +got)\n%s", golden, d)
	}

	// What it describes is there.
	paths, _ := doc["paths"].(map[string]any)
	if doc["openapi"] != "3.1.0" || len(paths) < 13 {
		t.Fatalf("version %v, %d paths", doc["openapi"], len(paths))
	}
	for path, item := range paths {
		for method := range item.(map[string]any) {
			target := strings.ReplaceAll(path, "{id}", "sb-1")
			resp := do(t, h, strings.ToUpper(method), target, "")
			if code := read(t, resp)["code"]; code == api.ReasonRouteNotFound || code == api.ReasonMethod {
				t.Errorf("%s %s is described and does not exist", method, path)
			}
		}
	}
}

// sink is an answer that nobody keeps.
type sink struct{ header http.Header }

func (s sink) Header() http.Header         { return s.header }
func (s sink) Write(p []byte) (int, error) { return len(p), nil }
func (s sink) WriteHeader(int)             {}

// Output goes out as it is, never as a second copy.
func TestExecMemory(t *testing.T) {
	const size = 6 << 20
	svc := &service{result: flash.ExecResult{Stdout: bytes.Repeat([]byte("line\n\xff"), size/6), Stderr: make([]byte, size)}}
	h := rest.New(svc, rest.Options{})
	call := func() {
		h.ServeHTTP(sink{http.Header{}}, httptest.NewRequestWithContext(t.Context(), "POST", "/sandboxes/sb-1/exec", strings.NewReader(`{"command":["a"]}`)))
	}
	call()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 { // of some 70 MB of JSON
		t.Errorf("%d bytes were allocated for an answer of %d", got, 2*size)
	}
}
