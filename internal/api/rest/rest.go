// Package rest serves flash.Service as the REST API that published clients
// speak: routes such as POST /sandboxes and POST /sandboxes/{id}/exec, with
// problem documents for errors and a description of itself at /openapi.json.
//
// It decodes, calls the service and encodes; it decides nothing about
// sandboxes. It is lenient in form, as clients in the field need it: no
// Content-Type is asked for, empty bodies are empty objects, a command may be a
// list or a string, whole numbers may be written as 512.0, null means "not
// given", unknown members are ignored. It is strict in meaning: a member of the
// wrong kind is refused by name. Redirects are never sent.
//
//	h := rest.New(service, rest.Options{Version: "1.0.0", Node: host})
//	http.ListenAndServe("127.0.0.1:8080", h)
//
// Listening, request ids, logs, panics and path prefixes are the business of
// internal/server.
package rest

import (
	"context"
	"net/http"
	"slices"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// MaxBody is the longest request body taken, in bytes.
const MaxBody = 4 << 20

// Options configures the API. The zero value works.
type Options struct {
	Version string // of the daemon, for /openapi.json
	Node    string // what node_id says; empty: "local"
	// Ready says why the daemon takes no work now, nil when it does. A nil
	// func is always ready.
	Ready func(ctx context.Context) error
	// Metrics answers GET /metrics. Nil: there is no such route.
	Metrics http.Handler
}

type handler struct {
	svc  flash.Service
	o    Options
	spec []byte // of /openapi.json
}

// route is one operation. in and out are zero values of the bodies, for the
// description; nil: there is none.
type route struct {
	method, path string
	id           string // operationId
	summary      string
	status       int // of success
	in, out      any
	query        []parameter
	serve        func(w http.ResponseWriter, r *http.Request) error
	hidden       bool // not described
}

// New returns a handler for the routes, without any prefix.
func New(svc flash.Service, o Options) http.Handler {
	if o.Node == "" {
		o.Node = "local"
	}
	h := &handler{svc: svc, o: o}
	routes := h.routes()
	h.spec = describe(routes, o.Version)

	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, rt := range routes {
		mux.Handle(rt.method+" "+rt.path, adapt(rt.serve))
		allowed[rt.path] = append(allowed[rt.path], rt.method)
	}
	for path, methods := range allowed {
		mux.Handle(path, adapt(wrongMethod(methods)))
	}
	for _, path := range laterPaths {
		mux.Handle(path, adapt(later501))
	}
	mux.Handle("/", adapt(noRoute))
	return tidy(mux)
}

func (h *handler) routes() []route {
	const sandbox = "/sandboxes/{id}"
	list := []route{
		{method: "POST", path: "/sandboxes", id: "createSandbox", summary: "Make a sandbox and wait until it runs", status: 201, in: createBody{}, out: api.Sandbox{}, serve: h.create},
		{method: "GET", path: sandbox, id: "getSandbox", summary: "Say how a sandbox is", status: 200, out: api.Sandbox{}, serve: h.get},
		{method: "DELETE", path: sandbox, id: "deleteSandbox", summary: "Remove a sandbox", status: 204, serve: h.remove,
			query: []parameter{{"cleanup", "boolean", "false keeps the sandbox, paused, for a later resume"}}},
		{method: "POST", path: sandbox + "/exec", id: "exec", summary: "Run a command to its end", status: 200, in: execBody{}, out: api.Exec{}, serve: h.exec},
		{method: "POST", path: sandbox + "/run_python", id: "runPython", summary: "Run Python code in the image's own interpreter", status: 200, in: pythonBody{}, out: api.Python{}, serve: h.python},
		{method: "GET", path: sandbox + "/platform_info", id: "platformInfo", summary: "Describe a sandbox from inside", status: 200, out: api.Info{}, serve: h.platformInfo},
		{method: "GET", path: sandbox + "/metrics", id: "sandboxMetrics", summary: "Read a sandbox's resource use", status: 200, out: flash.Metrics{}, serve: h.metrics},
		{method: "POST", path: sandbox + "/snapshot", id: "snapshot", summary: "Save a sandbox's state and leave it paused", status: 200, out: api.Snapshot{}, serve: h.snapshot},
		{method: "POST", path: sandbox + "/resume", id: "resume", summary: "Wake a paused sandbox", status: 204, serve: h.resume},
		{method: "GET", path: "/status", id: "status", summary: "Count sandboxes, and list them if asked", status: 200, out: api.Status{}, serve: h.status,
			query: []parameter{{"sandboxes", "boolean", "true lists the sandboxes too"}}},
		{method: "GET", path: "/snapshots", id: "listSnapshots", summary: "List snapshots", status: 200, out: api.Snapshots{}, serve: h.snapshots},
		{method: "DELETE", path: "/snapshots/{id}", id: "deleteSnapshot", summary: "Remove a snapshot", status: 204, serve: h.removeSnapshot},
		{method: "GET", path: "/images", id: "listImages", summary: "List cached images and pulls under way", status: 200, out: api.Images{}, serve: h.images},
		{method: "GET", path: "/backends", id: "listBackends", summary: "Say what isolates sandboxes here", status: 200, out: api.Backends{}, serve: h.backends},
		{method: "GET", path: "/healthz", id: "health", summary: "Answer if the daemon lives", status: 200, out: statusWord{}, serve: h.health},
		{method: "GET", path: "/readyz", id: "ready", summary: "Answer if the daemon takes work", status: 200, out: statusWord{}, serve: h.ready},
		{method: "GET", path: "/openapi.json", serve: h.openAPI, hidden: true},
	}
	if h.o.Metrics != nil {
		list = append(list, route{method: "GET", path: "/metrics", hidden: true, serve: func(w http.ResponseWriter, r *http.Request) error {
			h.o.Metrics.ServeHTTP(w, r)
			return nil
		}})
	}
	return list
}

// laterPaths are paths that later clients know and this daemon does not have.
// None ends in {rest...}: the mux would answer a path without the rest with a redirect.
var laterPaths = []string{
	"/sandboxes/{id}/resources", "/sandboxes/{id}/shell", "/sandboxes/{id}/setup", "/sandboxes/{id}/exec_config",
	"/sandboxes/{id}/hibernate", "/sandboxes/{id}/keepalive", "/sandboxes/{id}/files",
	"/sandboxes/{id}/agent/health", "/sandboxes/{id}/agent/fs/{act}",
	"/sandboxes/{id}/txns", "/sandboxes/{id}/txn/{txn}", "/sandboxes/{id}/txn/{txn}/{act}",
	"/sandboxes/{id}/checkpoints", "/sandboxes/{id}/checkpoints/{checkpoint}/diff",
	"/sandboxes/{id}/actions", "/sandboxes/{id}/audit", "/snapshots/{id}/fork", "/snapshots/{id}/fork-group",
	"/templates", "/templates/{name}",
	"/warm-demands/{workload}/{generation}", "/warm-demands/{workload}/{generation}/claim",
}

// later501 answers for them: 404 would tell clients that the sandbox is gone.
func later501(_ http.ResponseWriter, r *http.Request) error {
	return flash.Errorf(flash.Unsupported, "%s %s is not supported by this version", method(r), r.Pattern)
}

// adapt makes an http.Handler of a route: its error becomes a problem document.
func adapt(serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Pattern != "/" {
			api.ExchangeOf(r.Context()).Route = r.Pattern
		}
		if err := serve(w, r); err != nil {
			WriteProblem(w, r, api.Settle(r.Context(), err))
		}
	})
}

func noRoute(_ http.ResponseWriter, r *http.Request) error {
	return &flash.Error{Code: flash.NotFound, Reason: api.ReasonRouteNotFound, Message: "there is no route " + method(r) + " " + clip(r.URL.Path)}
}

// method returns the request's method, a token of ASCII, short enough for a sentence.
func method(r *http.Request) string { return r.Method[:min(len(r.Method), 20)] }

func wrongMethod(methods []string) func(http.ResponseWriter, *http.Request) error {
	methods = slices.Clone(methods)
	if slices.Contains(methods, "GET") {
		methods = append(methods, "HEAD")
	}
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", allow)
		return &flash.Error{Code: flash.Invalid, Reason: api.ReasonMethod, Message: method(r) + " is not allowed here, only " + allow}
	}
}

// tidy keeps paths away from the mux that it would answer with a redirect:
// published clients follow none, or turn a POST into a GET.
func tidy(mux http.Handler) http.Handler {
	untidy := adapt(func(_ http.ResponseWriter, r *http.Request) error {
		return &flash.Error{
			Code: flash.NotFound, Reason: api.ReasonRouteNotFound,
			Message: "there is no route " + method(r) + " " + clip(r.URL.Path) + ": the path has an empty element, or one that is \".\" or \"..\"",
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !tidyPath(r.URL.EscapedPath()) || r.Method == http.MethodConnect {
			untidy.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func tidyPath(escaped string) bool {
	rest, ok := strings.CutPrefix(escaped, "/")
	if !ok {
		return false
	}
	rest = strings.TrimSuffix(rest, "/")
	if rest == "" {
		return escaped == "/"
	}
	for element := range strings.SplitSeq(rest, "/") {
		if element == "" || element == "." || element == ".." {
			return false
		}
	}
	return true
}
