package docker_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/backendtest"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/docker"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

// TestMain gives the tests an engine of their own where none is configured and
// one can be started here.
func TestMain(m *testing.M) {
	if os.Getenv("FSB_DOCKER_HOST") != "" || os.Getenv("DOCKER_HOST") != "" {
		backendtest.Main(m, open)
	}
	backendtest.Main(ownEngine{m}, open)
}

// ownEngine runs tests with an engine that is started before and stopped after
// them, and fails when it leaves anything on the host.
type ownEngine struct{ m *testing.M }

func (o ownEngine) Run() int {
	dir, err := os.MkdirTemp("", "fsbd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	before, rules := testenv.Take(testenv.Options{Marks: []string{dir}}), iptables()
	host, err := dockerd("start", dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no Docker engine could be started:", err)
		return o.m.Run() // testenv.Require tells each test
	}
	if err := os.Setenv("DOCKER_HOST", host); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bridge, err := os.ReadFile(filepath.Join(dir, "bridge"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := o.m.Run()
	if _, err := dockerd("stop", dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	name := strings.TrimSpace(string(bridge))
	leaked := slices.DeleteFunc(before.Settle(5*time.Second), func(item string) bool {
		return strings.HasPrefix(item, "link ") && !strings.Contains(item, name) // of an engine beside ours
	})
	for rule := range iptables() {
		if !rules[rule] && strings.Contains(rule, name) {
			leaked = append(leaked, rule)
		}
	}
	if len(leaked) > 0 {
		fmt.Fprintf(os.Stderr, "left behind by the Docker engine:\n%s\n", strings.Join(leaked, "\n"))
		return 1
	}
	return code
}

// iptables returns the firewall's rules.
func iptables() map[string]bool {
	rules := map[string]bool{}
	out, _ := exec.Command("iptables-save").Output()
	for line := range strings.Lines(string(out)) {
		rules[line] = true
	}
	return rules
}

// dockerd runs the script that starts and stops engines.
func dockerd(cmd, dir string, flags ...string) (string, error) {
	c := exec.Command("../../../test/env/dockerd.sh", append([]string{cmd, dir}, flags...)...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("dockerd.sh %s: %w\n%s", cmd, err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// open is what a second process of the suite sees. arg is the owner, the folder
// with the images, the engine's address and the runtime.
func open(arg string) (backend.Backend, backend.Image, error) {
	f := strings.Split(arg, "|")
	if len(f) != 4 {
		return nil, nil, fmt.Errorf("argument %q", arg)
	}
	img, err := readImage(filepath.Join(f[1], "busybox"), "busybox")
	if err != nil {
		return nil, nil, err
	}
	return docker.New(docker.Config{Owner: f[0], Host: f[2], Runtime: f[3]}), img, nil
}

func logger() *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// images builds each kind of image once.
type images struct {
	mu    sync.Mutex
	dir   string
	built map[string]*archive
}

func newImages(t testing.TB) *images { return &images{dir: t.TempDir(), built: map[string]*archive{}} }

func (i *images) get(t testing.TB, kind string) backend.Image {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if a := i.built[kind]; a != nil {
		return a
	}
	a, err := buildImage(i.dir, kind)
	if err != nil {
		t.Fatal(err)
	}
	i.built[kind] = a
	return a
}

func TestBackend(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Docker)
	owner := fmt.Sprintf("test-docker-%d", os.Getpid())
	imgs := newImages(t)
	imgs.get(t, "busybox")
	backendtest.Run(t, backendtest.Subject{
		New: func(testing.TB) backend.Backend {
			return docker.New(docker.Config{Host: testenv.DockerHost(), Owner: owner, Logger: logger()})
		},
		Image: imgs.get, Arg: strings.Join([]string{owner, imgs.dir, testenv.DockerHost(), ""}, "|"), Marks: []string{owner},
	})
}

func BenchmarkBackend(b *testing.B) {
	testenv.Require(b, testenv.Root, testenv.Docker)
	owner := fmt.Sprintf("bench-docker-%d", os.Getpid())
	imgs := newImages(b)
	backendtest.Bench(b, backendtest.Subject{
		New: func(testing.TB) backend.Backend {
			return docker.New(docker.Config{Host: testenv.DockerHost(), Owner: owner})
		},
		Image: imgs.get, Arg: owner, Marks: []string{owner},
	})
}
