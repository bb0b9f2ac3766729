package gvisor

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// TestLeftover: a machine that can neither be made nor removed is removed
// later, and its id is free again.
func TestLeftover(t *testing.T) {
	b := open(t)
	good := b.cfg.exe
	for name, retry := range map[string]func(s backend.Spec) error{
		"Probe":  func(backend.Spec) error { return b.Probe(t.Context()) },
		"Create": func(backend.Spec) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t)
			busy := filepath.Join(b.dir(s.ID), "busy")
			// A launcher that fails and leaves a mount below the machine's directory.
			bad := filepath.Join(t.TempDir(), "launcher")
			script := "#!/bin/sh\nmkdir " + busy + " && mount -t tmpfs tmpfs " + busy + "\nexit 1\n"
			if err := os.WriteFile(bad, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			b.cfg.exe = bad
			_, err := b.Create(t.Context(), s)
			b.cfg.exe = good
			t.Cleanup(func() { _ = syscall.Unmount(busy, 0) })
			if err == nil {
				t.Fatal("a launcher that fails makes a machine")
			}
			if !exists(busy) {
				t.Fatal("the directory is gone in spite of the mount")
			}
			if err := b.Probe(t.Context()); err != nil {
				t.Errorf("Probe while it can't be removed: %v", err)
			}
			if _, err := b.Create(t.Context(), s); !errors.Is(err, flash.Exists) {
				t.Errorf("a machine is made in place of another: %v", err)
			}
			if err := syscall.Unmount(busy, 0); err != nil {
				t.Fatal(err)
			}
			if err := retry(s); err != nil {
				t.Error(err)
			}
			if name == "Probe" && exists(b.dir(s.ID)) {
				t.Error("Probe leaves it")
			}
			m, err := b.Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Probe(t.Context()); err != nil {
				t.Error(err)
			}
			if got := sh(t, m, "echo alive"); got != "alive\n" {
				t.Errorf("%q", got)
			}
			if len(b.leftovers) > 0 {
				t.Errorf("%d machines count as left behind", len(b.leftovers))
			}
		})
	}
}
