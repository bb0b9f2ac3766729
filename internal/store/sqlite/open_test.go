package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
	"github.com/flash-sandbox/flash-sandbox/internal/store/sqlite"
)

var ctx = context.Background()

func record(id flash.ID) *store.Sandbox {
	return &store.Sandbox{
		Sandbox: flash.Sandbox{
			ID: id, State: flash.Running, Backend: "fake", Image: "alpine",
			Command: []string{"sh", "-c", "echo 'hi'"}, MemoryMB: 512,
			CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC),
		},
		Handle: &backend.Handle{Backend: "fake", Version: 1, ID: id, Data: []byte(`{"pid":1}`)},
		Args:   []string{"sh"},
	}
}

// fill writes n records and closes the store.
func fill(t *testing.T, path string, n int) {
	t.Helper()
	st := open(t, path, sqlite.Options{})
	for i := range n {
		if err := st.InsertSandbox(ctx, record(flash.ID(fmt.Sprintf("sb-%04d", i)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReopenFindsRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fsbd.db")
	st := open(t, path, sqlite.Options{})
	want := record("sb-one")
	if err := st.InsertSandbox(ctx, want); err != nil {
		t.Fatal(err)
	}
	if err := st.UpdateSandbox(ctx, want); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path, sqlite.Options{}).Sandboxes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*store.Sandbox{want}, got); diff != "" {
		t.Errorf("after reopening (-want +got):\n%s", diff)
	}
}

// TestOddPaths: the path goes into a URI, where these characters mean something.
func TestOddPaths(t *testing.T) {
	for _, name := range []string{"a b", "a?b=c", "a#b", "a%20b", "ä", "a&_pragma=x"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		fill(t, filepath.Join(dir, name), 1)
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("the file is elsewhere: %v", err)
		}
	}
}

func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	fill(t, "fsbd.db", 1)
	if _, err := os.Stat("fsbd.db"); err != nil {
		t.Error(err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fsbd.db")
	fill(t, path, 1)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	st := open(t, path, sqlite.Options{})
	if err := st.InsertSandbox(ctx, record("sb-x")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) < 2 {
		t.Errorf("only %d files while open, want the write-ahead log as well", len(entries))
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", e.Name(), info.Mode().Perm())
		}
	}
}

func TestDamagedFileIsMovedAside(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"garbage":            func([]byte) []byte { return bytes.Repeat([]byte("not a database. "), 1000) },
		"short garbage":      func([]byte) []byte { return []byte("x") },
		"zeros":              func(b []byte) []byte { return make([]byte, len(b)) },
		"cut in a page":      func(b []byte) []byte { return b[:len(b)/2+100] },
		"cut between pages":  func(b []byte) []byte { return b[:len(b)/4096/2*4096] },
		"header only":        func(b []byte) []byte { return b[:100] },
		"one page of noise":  func(b []byte) []byte { copy(b[8192:12288], bytes.Repeat([]byte{0xa5}, 4096)); return b },
		"schema overwritten": func(b []byte) []byte { copy(b[200:4000], bytes.Repeat([]byte{0xff}, 3800)); return b },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "fsbd.db")
			fill(t, path, 100)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			broken := damage(bytes.Clone(whole))
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}

			var log bytes.Buffer
			at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			st := open(t, path, sqlite.Options{
				Log: slog.New(slog.NewTextHandler(&log, nil)),
				Now: func() time.Time { return at },
			})
			if got, err := st.Sandboxes(ctx); err != nil || len(got) != 0 {
				t.Errorf("after the damage: %d sandboxes, error %v; want none", len(got), err)
			}
			if err := st.InsertSandbox(ctx, record("sb-new")); err != nil {
				t.Errorf("the new file can't be used: %v", err)
			}
			aside := path + ".corrupt-20260301T120000.000000000Z"
			kept, err := os.ReadFile(aside)
			if err != nil {
				t.Fatalf("the damaged file was not kept: %v", err)
			}
			if !bytes.Equal(kept, broken) {
				t.Error("the damaged file was altered")
			}
			if line := log.String(); strings.Count(line, "\n") != 1 || !strings.Contains(line, aside) {
				t.Errorf("log = %q, want one line that names %s", line, aside)
			}
		})
	}
}

// TestEmptyFile: what a crash between creating the file and filling it leaves.
func TestEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fsbd.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, path, 1)
}

// TestUnreadableRecord: one bad record must not keep the others away.
func TestUnreadableRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fsbd.db")
	fill(t, path, 3)
	alter(t, path, `UPDATE sandboxes SET record = '{"ID":' WHERE id = 'sb-0001'`)
	var log bytes.Buffer
	got, err := open(t, path, sqlite.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Sandboxes(ctx)
	if err != nil || len(got) != 2 {
		t.Errorf("%d sandboxes, error %v; want the two good ones", len(got), err)
	}
	if !strings.Contains(log.String(), "sandbox=sb-0001") {
		t.Errorf("log = %q, want it to name sb-0001", log.String())
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fsbd.db")
	fill(t, path, 1)
	alter(t, path, `PRAGMA user_version = 999`)
	_, err := sqlite.Open(path, sqlite.Options{})
	if err == nil || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("error %v, want one that says the file is from a newer release", err)
	}
	if left, _ := filepath.Glob(path + ".corrupt-*"); len(left) != 0 {
		t.Errorf("the file was moved aside: %v", left)
	}
}

// TestOldRecord: the format that is out there stays readable. When this fails
// after a field was renamed, give the field a json tag with its old name.
func TestOldRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fsbd.db")
	fill(t, path, 0)
	old, err := os.ReadFile("testdata/sandbox-1.json")
	if err != nil {
		t.Fatal(err)
	}
	alter(t, path, `INSERT INTO sandboxes (id, rev, state, backend, created_at, record) VALUES ('sb-old', 7, 'stopped', 'docker', '', ?)`, string(old))
	got, err := open(t, path, sqlite.Options{}).Sandboxes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := &store.Sandbox{
		Sandbox: flash.Sandbox{
			ID: "sb-old", State: flash.Stopped, Backend: "docker", Image: "alpine:3", Digest: "sha256:ab",
			Command: []string{"sleep", "1"}, Env: map[string]string{"A": "1"}, MemoryMB: 256, CPUCores: 0.5,
			CreatedAt: time.Date(2026, 11, 24, 15, 0, 0, 1, time.UTC),
			ReadyAt:   time.Date(2026, 11, 24, 15, 0, 1, 0, time.UTC),
			Ending:    &flash.Ending{Cause: flash.CauseExited, ExitCode: 3, Message: "ended"},
			Restored:  "sn-x", Metadata: map[string]any{"n": 1.0},
		},
		Handle:  &backend.Handle{Backend: "docker", Version: 1, ID: "sb-old", Data: []byte(`{"c":"1"}`)},
		Args:    []string{"/bin/sleep", "1"},
		FullEnv: []string{"PATH=/bin", "A=1"},
		Dir:     "/srv", User: "app", Rev: 7,
	}
	if diff := cmp.Diff([]*store.Sandbox{want}, got); diff != "" {
		t.Errorf("a record of the first release (-want +got):\n%s", diff)
	}
}

// alter runs a statement on the file behind the store's back.
func alter(t *testing.T, path, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatal(err)
	}
}
