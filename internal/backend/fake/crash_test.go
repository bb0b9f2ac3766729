package fake_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/fake"
)

func spec(id flash.ID) backend.Spec {
	return backend.Spec{ID: id, Args: []string{"sleep", "300"}, Env: []string{"PATH=" + os.Getenv("PATH")}, Dir: "/work"}
}

// marked counts the live processes that belong to machines below dir.
func marked(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if env, err := os.ReadFile(f); err == nil && strings.Contains(string(env), "FSB_FAKE_MACHINE="+dir) {
			n++
		}
	}
	return n
}

func list(t *testing.T, b backend.Backend) []backend.Handle {
	t.Helper()
	var hs []backend.Handle
	for h, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, h)
	}
	return hs
}

func TestCreateFailsAtEachPoint(t *testing.T) {
	for _, op := range []string{fake.OpCreate, fake.OpCreateDir, fake.OpCreateStarted, fake.OpCreateDone} {
		for _, cause := range []error{fake.ErrCrash, errors.New("broken")} {
			t.Run(op+"/"+cause.Error(), func(t *testing.T) {
				dir := t.TempDir()
				b := fake.New(fake.Config{Dir: dir, Fault: func(_ context.Context, at string, id flash.ID) error {
					if at == op && id == "sb-1" {
						return cause
					}
					return nil
				}})
				if _, err := b.Create(t.Context(), spec("sb-1")); !errors.Is(err, cause) {
					t.Fatalf("Create: %v, want %v", err, cause)
				}
				again := fake.New(fake.Config{Dir: dir})
				left := list(t, again)
				want := 0
				if errors.Is(cause, fake.ErrCrash) && op != fake.OpCreate {
					want = 1
				}
				if len(left) != want {
					t.Fatalf("List has %d machines, want %d", len(left), want)
				}
				if runs := marked(t, dir) > 0; runs != (want == 1 && op != fake.OpCreateDir) {
					t.Errorf("a process runs: %v", runs)
				}
				for _, h := range left {
					m, err := again.Attach(t.Context(), h)
					if err != nil {
						t.Fatal(err)
					}
					if err := m.Destroy(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if n, hs := marked(t, dir), list(t, again); n != 0 || len(hs) != 0 {
					t.Errorf("left after Destroy: %d processes, %v", n, hs)
				}
			})
		}
	}
}

func TestDestroyInterrupted(t *testing.T) {
	dir := t.TempDir()
	crash := fake.New(fake.Config{Dir: dir, Fault: func(_ context.Context, at string, _ flash.ID) error {
		if at == fake.OpDestroyKilled {
			return fake.ErrCrash
		}
		return nil
	}})
	m, err := crash.Create(t.Context(), spec("sb-1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Destroy(t.Context()); !errors.Is(err, fake.ErrCrash) {
		t.Fatalf("Destroy: %v", err)
	}
	b := fake.New(fake.Config{Dir: dir})
	m, err = b.Attach(t.Context(), m.Handle())
	if err != nil {
		t.Fatal(err)
	}
	if st, err := m.Status(t.Context()); err != nil || st != backend.StatusEnded {
		t.Errorf("Status after the crash: %v, %v; want ended", st, err)
	}
	if err := m.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if hs := list(t, b); len(hs) != 0 {
		t.Errorf("List after Destroy: %v", hs)
	}
}
