package script

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
)

// bin holds the programs under test; images is the registry that stands in for
// Docker Hub.
var world struct {
	once   sync.Once
	err    error
	bin    string
	hub    *registry.Server
	remove func()
}

func TestMain(m *testing.M) {
	code := m.Run()
	if world.remove != nil {
		world.remove()
	}
	os.Exit(code)
}

// TestDaemon runs the scripts about the daemon itself.
func TestDaemon(t *testing.T) {
	testenv.Require(t, testenv.GVisor)
	run(t, "testdata/daemon", "gvisor", "off")
}

// TestBackend runs the other scripts on every backend.
func TestBackend(t *testing.T) {
	t.Run("gvisor", func(t *testing.T) {
		testenv.Require(t, testenv.GVisor)
		run(t, "testdata/backend", "gvisor", "off")
	})
	t.Run("docker", func(t *testing.T) {
		testenv.Require(t, testenv.Docker)
		run(t, "testdata/backend", "docker", testenv.DockerHost())
	})
}

func run(t *testing.T, dir, backend, dockerHost string) {
	prepare(t)
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// Paths of sockets below it must stay short.
			data, err := os.MkdirTemp("", "fsb-s-")
			if err != nil {
				return err
			}
			d := &daemon{
				t: e.T().(testing.TB), bin: filepath.Join(world.bin, "fsbd"), data: data,
				before: testenv.Take(testenv.Options{Marks: []string{data, e.WorkDir}}),
			}
			e.Values[daemonKey{}] = d
			e.Defer(d.clean)
			e.Vars = append(e.Vars,
				"PATH="+world.bin+string(os.PathListSeparator)+os.Getenv("PATH"),
				"BACKEND="+backend,
				"HUB="+world.hub.Addr(),
				"LAYOUTS="+filepath.Join(world.bin, "images"),
				"FSB_DATA_DIR="+data,
				"FSB_HTTP_ADDR=127.0.0.1:0",
				"FSB_GRPC_ADDR=127.0.0.1:0",
				"FSB_DOCKER_HOST="+dockerHost,
				"FSB_LOG_FORMAT=json",
				"FSB_REGISTRY_MIRRORS=docker.io="+world.hub.URL(),
			)
			d.vars = e.Vars
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch r := testenv.Requirement(name); r {
			case testenv.Docker, testenv.GVisor, testenv.Root:
				return r.Check(context.Background()) == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": cmdDaemon, "http": cmdHTTP, "exits": cmdExits, "set": cmdSet, "poll": cmdPoll,
		},
	})
}

// prepare makes the programs and images available, once.
func prepare(t *testing.T) {
	t.Helper()
	world.once.Do(func() { world.err = build() })
	if world.err != nil {
		t.Fatal(world.err)
	}
}

func build() error {
	dir, err := os.MkdirTemp("", "fsb-script-bin-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // for the unprivileged daemon
		return err
	}
	world.bin = dir
	world.remove = func() { _ = os.RemoveAll(dir) }
	for name, given := range map[string]string{"fsbd": os.Getenv("FSB_TEST_FSBD"), "fsb": os.Getenv("FSB_TEST_FSB")} {
		path := filepath.Join(dir, name)
		if given != "" {
			if given, err = filepath.Abs(given); err != nil {
				return err
			}
			if err := os.Symlink(given, path); err != nil {
				return err
			}
			continue
		}
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../../cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	// Scripts work below dir as well, so that all of it goes with it: testscript
	// leaves its own directory there when only some scripts are chosen.
	if err := os.Setenv("GOTMPDIR", dir); err != nil {
		return err
	}
	return serveImages(dir)
}

// serveImages builds the images from Debian packages and serves them.
func serveImages(dir string) error {
	hub, err := registry.Open(registry.Options{})
	if err != nil {
		return err
	}
	world.hub = hub
	world.remove = func() {
		_ = hub.Close()
		_ = os.RemoveAll(dir)
	}
	for name, kind := range map[string]string{"library/alpine:latest": "alpine-python", "library/busybox:latest": "busybox"} {
		layout := filepath.Join(dir, "images", kind)
		if out, err := exec.Command("../images/build.sh", kind, layout).CombinedOutput(); err != nil {
			return fmt.Errorf("build image %s: %w\n%s", kind, err, out)
		}
		if err := hub.PutLayout(name, layout); err != nil {
			return err
		}
	}
	return nil
}

// cmdExits runs a program and checks its exit code exactly.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	if code := exitCode(ts.Exec(args[1], args[2:]...)); fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // testscript returns it as it is
		return e.ExitCode()
	}
	return -1
}

func cmdPoll(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] poll PROGRAM [ARG...]")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if (ts.Exec(args[0], args[1:]...) == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("still not so after 20 s: %s", strings.Join(args, " "))
		}
	}
}
