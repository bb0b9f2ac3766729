package gvisor

import (
	"os"
	"testing"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/backendtest"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

func subject(t testing.TB) backendtest.Subject {
	testenv.Require(t, testenv.GVisor)
	dir, err := os.MkdirTemp("", "fsb-gvisor-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("the state directory is not empty: %v", err)
		}
	})
	cfg := Config{StateDir: dir, DebugDir: os.Getenv("FSB_GVISOR_DEBUG"), exe: executable(t)}
	busybox := image(t)
	return backendtest.Subject{
		New: func(t testing.TB) backend.Backend {
			b, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Image: func(t testing.TB, kind string) backend.Image { return imageOf(t, kind) },
		Arg:   dir + "\n" + string(busybox) + "\n" + cfg.exe,
		Marks: []string{dir, cgroupPrefix(dir)},
	}
}

func TestSuite(t *testing.T) { backendtest.Run(t, subject(t)) }
