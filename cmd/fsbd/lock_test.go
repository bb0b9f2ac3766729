package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flash-sandbox/flash-sandbox/internal/backend/gvisor"
	"github.com/flash-sandbox/flash-sandbox/internal/config"
)

func TestMain(m *testing.M) {
	gvisor.RunIfReexec()
	os.Exit(m.Run())
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestDataDir(t *testing.T) {
	write := func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		refused bool
	}{
		{"empty", func(*testing.T, string) {}, false},
		{"missing", func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"used before", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, lockName))
			write(t, filepath.Join(dir, "state.db"))
		}, false},
		{"fresh volume", func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"somebody's", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "letter.txt")) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, dir)
			f, err := lockDataDir(dir)
			if c.refused {
				if err == nil || !strings.Contains(err.Error(), "FSB_DATA_DIR: "+dir+" holds files") {
					t.Errorf("error is %v", err)
				}
				if m := mode(t, dir); m != 0o777 {
					t.Errorf("its mode is %o now", m)
				}
				if _, err := os.Stat(filepath.Join(dir, lockName)); err == nil {
					t.Error("it has a lock file now")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if m := mode(t, dir); m != 0o700 {
				t.Errorf("mode is %o", m)
			}
			if _, err := lockDataDir(dir); err == nil || !strings.Contains(err.Error(), "in use") {
				t.Errorf("the second one: %v", err)
			}
		})
	}
}

func TestOwnerID(t *testing.T) {
	dir := t.TempDir()
	first, err := ownerID(dir)
	if err != nil || first == "" {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := ownerID(dir); err != nil || again != first {
		t.Errorf("%q, %v, want %q", again, err, first)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := ownerID(filepath.Join(dir, "missing")); err == nil {
		t.Error("no folder, no error")
	}
}

// A daemon that is told to stop while it starts ends as ordered.
func TestStopWhileStarting(t *testing.T) {
	c := config.Default(os.Getuid(), os.Getenv)
	c.DataDir, c.HTTPAddr, c.GRPCAddr, c.DockerHost = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", "off"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := &daemon{config: c, version: "test", log: slog.New(slog.DiscardHandler)}
	if err := d.run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
}
