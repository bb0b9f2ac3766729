package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/flash-sandbox/flash-sandbox"

// pkg is what go list says of a package, without its tests.
type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	Standard   bool
	GoFiles    []string
	Imports    []string
}

// ours reports whether the package belongs to this module.
func (p *pkg) ours() bool {
	return p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/")
}

// graph is the import graph of everything the module's packages reach.
type graph map[string]*pkg

var load = sync.OnceValues(func() (graph, error) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Name,Dir,Standard,GoFiles,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	g := make(graph)
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return g, nil
		} else if err != nil {
			return nil, err
		}
		g[p.ImportPath] = p
	}
})

func loadGraph(t *testing.T) graph {
	t.Helper()
	g, err := load()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("go list: %v\n%s", err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	if g[module] == nil {
		t.Fatal("go list does not know the module's root package")
	}
	return g
}

// own returns the module's packages whose path below the module begins with
// one of the prefixes, sorted; a prefix without a trailing slash is a whole path.
func (g graph) own(prefixes ...string) []*pkg {
	var out []*pkg
	for _, p := range g {
		if p.ours() && matches(rel(p.ImportPath), prefixes) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *pkg) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	return out
}

// rel is an import path below the module, "." for its root.
func rel(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func matches(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return path == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(path, prefix)
	})
}

// path returns how from reaches a package that want accepts, as a chain of
// import paths; nil if it doesn't. The shortest chain explains a fault best.
func (g graph) path(from string, want func(path string) bool) []string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at != from && want(at) {
			var chain []string
			for p := at; p != ""; p = before[p] {
				chain = append(chain, p)
			}
			slices.Reverse(chain)
			return chain
		}
		if g[at] == nil {
			continue
		}
		for _, next := range g[at].Imports {
			if _, seen := before[next]; !seen {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// mustNotReach reports each of the packages from which a forbidden one is
// reached. Forbidden are prefixes as in own, of paths below the module or, if
// their first element has a dot, of whole import paths.
func (g graph) mustNotReach(t *testing.T, why string, from []*pkg, forbidden ...string) {
	t.Helper()
	if len(from) == 0 {
		t.Errorf("no package is left to hold to the rule %q", why)
	}
	for _, p := range from {
		chain := g.path(p.ImportPath, func(path string) bool {
			if q := g[path]; q != nil && q.ours() {
				path = rel(path)
			}
			return matches(path, forbidden)
		})
		if chain != nil {
			t.Errorf("%s: %s", why, strings.Join(chain, " -> "))
		}
	}
}
