package docker

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// toy is an engine that answers as it is told to: what goes wrong here, real
// engines do once in a thousand times.
type toy struct {
	mu         sync.Mutex
	containers map[string]toyContainer // by name
	images     map[string]bool         // by tag
	made       int
	calls      map[string]int // by kind of call
	// hook may answer a call itself, by returning true.
	hook func(kind string, w http.ResponseWriter, r *http.Request) bool
}

type toyContainer struct {
	id     string
	labels map[string]string
}

var toyCalls = []struct {
	kind string
	path *regexp.Regexp
}{
	{"GET ping", regexp.MustCompile(`^/_ping$`)},
	{"GET info", regexp.MustCompile(`/info$`)},
	{"POST create", regexp.MustCompile(`/containers/create$`)},
	{"POST start", regexp.MustCompile(`/containers/([^/]+)/start$`)},
	{"POST pause", regexp.MustCompile(`/containers/([^/]+)/(?:un)?pause$`)},
	{"GET inspect", regexp.MustCompile(`/containers/([^/]+)/json$`)},
	{"DELETE remove", regexp.MustCompile(`/containers/([^/]+)$`)},
	{"POST commit", regexp.MustCompile(`/commit$`)},
	{"GET image", regexp.MustCompile(`/images/(.+)/json$`)},
	{"DELETE rmi", regexp.MustCompile(`/images/(.+)$`)},
	{"POST exec", regexp.MustCompile(`/containers/([^/]+)/exec$`)},
	{"POST attach", regexp.MustCompile(`/exec/([^/]+)/start$`)},
	{"GET result", regexp.MustCompile(`/exec/([^/]+)/json$`)},
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func (e *toy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.45")
	w.Header().Set("Ostype", "linux")
	kind, arg := "", ""
	for _, c := range toyCalls {
		if m := c.path.FindStringSubmatch(r.URL.Path); m != nil && c.kind[:len(r.Method)+1] == r.Method+" " {
			kind, arg = c.kind[len(r.Method)+1:], m[len(m)-1]
			break
		}
	}
	e.mu.Lock()
	e.calls[kind]++
	hook := e.hook
	e.mu.Unlock()
	if hook != nil && hook(kind, w, r) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch kind {
	case "ping":
		w.WriteHeader(http.StatusOK)
	case "info":
		reply(w, 200, map[string]any{"OSType": "linux", "NCPU": 2})
	case "create":
		e.create(w, r)
	case "start", "pause":
		w.WriteHeader(http.StatusNoContent)
	case "inspect":
		for name, c := range e.containers {
			if name == arg || c.id == arg {
				reply(w, 200, map[string]any{"Id": c.id, "State": map[string]any{"Running": true, "Status": "running"}, "Config": map[string]any{"Labels": c.labels}})
				return
			}
		}
		reply(w, 404, map[string]string{"message": "No such container"})
	case "remove":
		for name, c := range e.containers {
			if name == arg || c.id == arg {
				delete(e.containers, name)
			}
		}
		w.WriteHeader(http.StatusNoContent)
	case "commit":
		e.commit(r)
		reply(w, 201, map[string]string{"Id": "sha256:1"})
	case "image":
		if !e.images[arg] {
			reply(w, 404, map[string]string{"message": "No such image"})
			return
		}
		reply(w, 200, map[string]any{"Id": "sha256:1", "RepoTags": []string{arg}})
	case "rmi":
		delete(e.images, arg)
		reply(w, 200, []any{})
	case "exec":
		reply(w, 201, map[string]string{"Id": "e1"})
	default:
		reply(w, 404, map[string]string{"message": "no " + r.URL.Path})
	}
}

// commit is called with e.mu held.
func (e *toy) commit(r *http.Request) {
	q := r.URL.Query()
	e.images[strings.TrimPrefix(q.Get("repo"), "docker.io/")+":"+q.Get("tag")] = true
}

// create is called with e.mu held; a nil w makes a container late.
func (e *toy) create(w http.ResponseWriter, r *http.Request) {
	var body struct{ Labels map[string]string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	name := r.URL.Query().Get("name")
	if _, taken := e.containers[name]; taken {
		reply(w, 409, map[string]string{"message": "Conflict. The container name is already in use"})
		return
	}
	e.made++
	c := toyContainer{id: "c" + string(rune('0'+e.made%10)), labels: body.Labels}
	e.containers[name] = c
	if w != nil {
		reply(w, 201, map[string]string{"Id": c.id})
	}
}

func (e *toy) set(hook func(kind string, w http.ResponseWriter, r *http.Request) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hook = hook
}

// first hands the first call of a kind to fn.
func (e *toy) first(kind string, fn func(w http.ResponseWriter, r *http.Request)) {
	var had atomic.Bool
	e.set(func(k string, w http.ResponseWriter, r *http.Request) bool {
		if k != kind || had.Swap(true) {
			return false
		}
		fn(w, r)
		return true
	})
}

func (e *toy) count(kind string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[kind]
}

// ids of the containers there are.
func (e *toy) ids() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := []string{}
	for _, c := range e.containers {
		ids = append(ids, c.id)
	}
	return ids
}

// hang holds a call up until its caller has left.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only then the server sees the caller leave
	<-r.Context().Done()
}

var toySpec = backend.Spec{ID: "x", Args: []string{"sleep"}, Image: &ownImage{id: "sha256:0"}}

func toyEngine(t *testing.T) (*toy, *Backend) {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "e.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	e := &toy{containers: map[string]toyContainer{}, images: map[string]bool{}, calls: map[string]int{}}
	s := &http.Server{Handler: e}
	go func() { _ = s.Serve(l) }()
	b := New(Config{Host: "unix://" + sock, Owner: "toys"})
	b.engine.limits = limits{
		ping: 2 * time.Second, suspect: time.Second, retry: 300 * time.Millisecond, settle: 2 * time.Second, most: 500 * time.Millisecond,
	}
	t.Cleanup(func() { _, _ = b.Close(), s.Close() })
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, b
}

func (b *Backend) toyMachine(t *testing.T) *Machine {
	t.Helper()
	m, err := b.Create(t.Context(), toySpec)
	if err != nil {
		t.Fatal(err)
	}
	return m.(*Machine)
}

// letBreakersPass waits until a hung kind of call may be tried again.
func (b *Backend) letBreakersPass() { time.Sleep(b.engine.limits.retry + 50*time.Millisecond) }
