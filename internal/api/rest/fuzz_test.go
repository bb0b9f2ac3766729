package rest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api/rest"
)

var bodies = []string{
	"", "{}", "null", "[]", `"x"`, "{", `{"image":"x"}`, `{"image":"x","memory_mb":512.0,"cpu_cores":1e-1}`,
	`{"type":"docker","image":"x","command":[],"memory_mb":512,"cpu_cores":1.0}`,
	`{"image":"x","command":"echo hi","env":{"A":"b"},"metadata":{"a":[1,{"b":null}]},"id":"own"}`,
	`{"image":"x","memory_mb":9223372036854775808}`, `{"image":"x","memory_mb":-9.3e18}`, `{"image":"x","cpu_cores":NaN}`,
	`{"image":null,"gpu":{},"ttl_seconds":1e999}`, `{"snapshot_node_id":"sn-1"}`, `{"command":["a","\u0000"]}`, `{"command":["sh","-c","x"],"timeout_ms":1}`,
	`{"script":"x","timeout_ms":9e300}`, `{"command":["\ud800"]}`, "{\"image\":\"\xff\"}", `{"a":1,"a":2}`, strings.Repeat(`{"metadata":`, 100),
}

func add(f *testing.F) {
	for _, b := range bodies {
		f.Add([]byte(b))
	}
}

// post sends a body and checks what holds for every answer.
func post(t *testing.T, h http.Handler, target string, body []byte) int {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "POST", target, strings.NewReader(string(body))))
	var reply map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &reply); err != nil || !utf8.Valid(rec.Body.Bytes()) {
		t.Fatalf("%v in %q", err, rec.Body)
	}
	switch rec.Code {
	case 200, 201:
	case 400, 413, 501:
		if m, _ := reply["message"].(string); m == "" || len(m) > 1000 {
			t.Fatalf("message %q", m)
		}
	default:
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	return rec.Code
}

func FuzzCreate(f *testing.F) {
	add(f)
	svc := &service{}
	h := rest.New(svc, rest.Options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		*svc = service{}
		if post(t, h, "/sandboxes", body) == 201 {
			if err := svc.create.Validate(); err != nil {
				t.Fatal(err)
			}
		} else if svc.create != nil && svc.create.Validate() == nil {
			t.Fatalf("valid options %+v were refused", svc.create)
		}
	})
}

func FuzzExec(f *testing.F) {
	add(f)
	svc := &service{}
	h := rest.New(svc, rest.Options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		*svc = service{result: flash.ExecResult{Stdout: body, Stderr: body}} // the body is also what the writer must cope with
		if post(t, h, "/sandboxes/sb-1/exec", body) == 200 {
			if err := svc.exec.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
