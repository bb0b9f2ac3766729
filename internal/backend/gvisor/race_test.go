//go:build race

package gvisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var (
	executableOnce sync.Once
	executableFile string
)

// executable is what launchers execute in tests. gVisor's kernel does not run
// with the race detector in it, so the detector watches the daemon's side
// only, and the rest runs in a test binary without.
func executable(t testing.TB) string {
	t.Helper()
	executableOnce.Do(func() {
		dir, err := os.MkdirTemp("", "fsb-gvisor-exe-")
		if err != nil {
			t.Fatal(err)
		}
		executableFile = filepath.Join(dir, "gvisor.test")
		c := exec.Command("go", "test", "-c", "-o", executableFile, ".")
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	return executableFile
}

func removeExecutable() {
	if executableFile != "" {
		_ = os.RemoveAll(filepath.Dir(executableFile))
	}
}
