package archtest

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// TestDomainIsPure: everything may import package flash because it imports
// nothing but the standard library.
func TestDomainIsPure(t *testing.T) {
	g := loadGraph(t)
	chain := g.path(module, func(path string) bool { return g[path] == nil || !g[path].Standard })
	if chain != nil {
		t.Errorf("package flash reaches beyond the standard library: %s", strings.Join(chain, " -> "))
	}
}

// TestAdaptersAreStrangers: implementations of one interface know the
// interface and not each other.
func TestAdaptersAreStrangers(t *testing.T) {
	g := loadGraph(t)
	for _, parent := range []string{"internal/backend/", "internal/store/", "internal/api/"} {
		adapters := slices.DeleteFunc(g.own(parent), func(p *pkg) bool { return strings.HasSuffix(family(parent, p), "test") })
		if len(adapters) == 0 {
			t.Errorf("no adapters below %s", parent)
		}
		for _, a := range adapters {
			chain := g.path(a.ImportPath, func(to string) bool {
				q := g[to]
				return q != nil && q.ours() && strings.HasPrefix(rel(to), parent) && family(parent, q) != family(parent, a)
			})
			if chain != nil {
				t.Errorf("one adapter imports another: %s", strings.Join(chain, " -> "))
			}
		}
	}
}

// family is the adapter a package belongs to: its first element below parent.
func family(parent string, p *pkg) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(rel(p.ImportPath), parent), "/")
	return first
}

// TestLayers: a layer knows those below it and none above.
func TestLayers(t *testing.T) {
	g := loadGraph(t)
	g.mustNotReach(t, "a backend knows nothing of what uses it", g.own("internal/backend/", "internal/backend"),
		"internal/api", "internal/api/", "internal/manager", "internal/manager/", "internal/store", "internal/store/", "internal/server", "client")
	g.mustNotReach(t, "a store knows nothing of what uses it", g.own("internal/store/", "internal/store"),
		"internal/api", "internal/api/", "internal/manager", "internal/server", "client")
	g.mustNotReach(t, "the manager knows interfaces and no adapters", g.own("internal/manager"),
		"internal/backend/", "internal/store/", "internal/api", "internal/api/", "internal/server", "internal/config", "client")
	g.mustNotReach(t, "a transport knows flash.Service and not who implements it", g.own("internal/api", "internal/api/", "internal/server", "client"),
		"internal/manager", "internal/backend", "internal/backend/", "internal/store", "internal/store/", "internal/image", "internal/image/")
	g.mustNotReach(t, "settings start nothing", g.own("internal/config"),
		"internal/manager", "internal/backend", "internal/store", "internal/image", "internal/server", "internal/api")
}

// TestClientIsSmall: fsb is copied to many machines and speaks HTTP only.
func TestClientIsSmall(t *testing.T) {
	g := loadGraph(t)
	g.mustNotReach(t, "fsb speaks to a daemon and holds no part of one", g.own("cmd/fsb", "client"),
		"internal/manager", "internal/backend", "internal/backend/", "internal/store", "internal/store/", "internal/image", "internal/server",
		"internal/api/rest", "internal/api/rpc", "internal/config",
		"github.com/moby/", "github.com/docker/", "gvisor.dev/", "github.com/google/go-containerregistry/", "modernc.org/",
		"github.com/danielgtaylor/", "connectrpc.com/", "google.golang.org/", "github.com/prometheus/")
}

// TestOneDoor: a large or unstable dependency comes in through one package,
// which alone has to be changed when it moves.
func TestOneDoor(t *testing.T) {
	g := loadGraph(t)
	for _, rule := range []struct {
		dependency string
		doors      []string
	}{
		{"gvisor.dev/", []string{"internal/backend/gvisor", "internal/backend/gvisor/"}},
		{"modernc.org/", []string{"internal/store/sqlite"}},
		{"github.com/moby/moby/", []string{"internal/backend/docker", "internal/backend/docker/"}},
		{"github.com/google/go-containerregistry/", []string{"internal/image", "internal/image/"}},
		{"github.com/spf13/cobra", []string{"cmd/fsb"}},
		{"github.com/pelletier/", []string{"internal/config"}},
		{"github.com/caarlos0/", []string{"internal/config"}},
	} {
		used := false
		for _, p := range g.production() {
			for _, imp := range p.Imports {
				if !matches(imp, []string{rule.dependency}) {
					continue
				}
				used = true
				if !matches(rel(p.ImportPath), rule.doors) {
					t.Errorf("%s imports %s, which only %s may", rel(p.ImportPath), imp, strings.Join(rule.doors, ", "))
				}
			}
		}
		if !used {
			t.Errorf("nothing imports %s any more: drop the rule", rule.dependency)
		}
	}
}

// TestNoTestCodeInPrograms: what is made for tests is not shipped.
func TestNoTestCodeInPrograms(t *testing.T) {
	g := loadGraph(t)
	for _, p := range g.production() {
		for element := range strings.SplitSeq(rel(p.ImportPath), "/") {
			if strings.HasSuffix(element, "test") || element == "testenv" {
				t.Errorf("a program contains %s", rel(p.ImportPath))
			}
		}
	}
}

// production returns the module's packages that the programs are made of.
func (g graph) production() []*pkg {
	seen := make(map[string]bool)
	var out []*pkg
	var visit func(path string)
	visit = func(path string) {
		p := g[path]
		if p == nil || seen[path] {
			return
		}
		seen[path] = true
		if p.ours() {
			out = append(out, p)
		}
		for _, next := range p.Imports {
			visit(next)
		}
	}
	for _, p := range g.own("cmd/") {
		visit(p.ImportPath)
	}
	return out
}

// TestRulesBite: the graph behind the rules is really there.
func TestRulesBite(t *testing.T) {
	g := loadGraph(t)
	for from, to := range map[string]string{
		module + "/cmd/fsb": module, module + "/cmd/fsbd": "gvisor.dev/gvisor/runsc/container", module + "/internal/store/sqlite": "modernc.org/sqlite",
	} {
		if g.path(from, func(path string) bool { return path == to }) == nil {
			t.Errorf("%s is not found to reach %s", rel(from), to)
		}
	}
}

// TestNames: a package is named after what it is.
func TestNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "types", "helper", "helpers", "model", "models", "base", "impl", "misc", "shared"}
	for _, p := range loadGraph(t) {
		if p.ours() && slices.Contains(vague, path.Base(p.ImportPath)) {
			t.Errorf("%s: the name says nothing of what it holds", rel(p.ImportPath))
		}
	}
}
