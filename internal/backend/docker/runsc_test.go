package docker_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/backendtest"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/docker"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

// runscEngine starts an engine that knows fsbd, which is also runsc, as
// runtime "runsc", and a second time with gVisor's own overlay as "runsc-overlay".
func runscEngine(t *testing.T) string {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Docker, testenv.GVisor)
	dir := t.TempDir()
	fsbd := os.Getenv("FSB_TEST_FSBD")
	if fsbd == "" {
		fsbd = filepath.Join(dir, "fsbd")
		cmd := exec.Command("go", "build", "-o", fsbd, "../../../cmd/fsbd")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build fsbd: %v\n%s", err, out)
		}
	}
	var flags []string
	for name, extra := range map[string]string{"runsc": "--overlay2=none", "runsc-overlay": ""} {
		wrapper := filepath.Join(dir, name)
		script := fmt.Sprintf("#!/bin/bash\nexec -a runsc '%s' --platform=systrap --network=none %s \"$@\"\n", fsbd, extra)
		if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--add-runtime", name+"="+wrapper)
	}
	_, host := privateEngine(t, flags...)
	return host
}

func TestRunsc(t *testing.T) {
	host := runscEngine(t)
	t.Run("Backend", func(t *testing.T) {
		owner := fmt.Sprintf("test-runsc-%d", os.Getpid())
		imgs := newImages(t)
		imgs.get(t, "busybox")
		backendtest.Run(t, backendtest.Subject{
			New: func(testing.TB) backend.Backend {
				return docker.New(docker.Config{Host: host, Runtime: "runsc", Owner: owner, Logger: logger()})
			},
			Image: imgs.get, Arg: strings.Join([]string{owner, imgs.dir, host, "runsc"}, "|"), Marks: []string{owner},
		})
	})
	t.Run("Kernel", func(t *testing.T) {
		s := on(t, host, docker.Config{Runtime: "runsc"})
		if info := s.b.Info(); info.Name != "docker/runsc" || info.Isolation != "userspace-kernel" {
			t.Errorf("Info is %+v", info)
		}
		out, err := sh(t.Context(), s.machine(), "dmesg")
		if err != nil || !strings.Contains(out, "gVisor") {
			t.Errorf("the kernel's messages are %q, %v, want gVisor's", out, err)
		}
	})
	t.Run("Overlay", func(t *testing.T) {
		s := on(t, host, docker.Config{Runtime: "runsc-overlay"})
		m := s.machine()
		_, err := m.Snapshot(t.Context(), t.TempDir())
		if !errors.Is(err, flash.Unsupported) {
			t.Errorf("Snapshot of what the engine can't see: %v, want unsupported", err)
		}
		says(t, m, "ls -a / | grep flash; echo runs", "runs")
	})
}
