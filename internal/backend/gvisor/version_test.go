package gvisor

import (
	"runtime/debug"
	"testing"
)

func TestVersion(t *testing.T) {
	const path = "gvisor.dev/gvisor"
	other := &debug.Module{Path: "example.com/other", Version: "v9.9.9"}
	for _, c := range []struct {
		name string
		deps []*debug.Module
		want string
	}{
		{"module", []*debug.Module{other, {Path: path, Version: "v0.0.0-2026"}}, "v0.0.0-2026"},
		{"replaced", []*debug.Module{{Path: path, Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.1"}}}, "v1.0.1"},
		{"replaced by a directory", []*debug.Module{{Path: path, Version: "v1.0.0", Replace: &debug.Module{Path: "../gvisor"}}}, unknownVersion},
		{"test binary", []*debug.Module{other}, unknownVersion},
	} {
		if got := versionIn(&debug.BuildInfo{Deps: c.deps}); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	b, err := New(Config{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := b.Info().Version; got != version() || got == "" {
		t.Errorf("Info has version %q, want %q as snapshots do", got, version())
	}
}
