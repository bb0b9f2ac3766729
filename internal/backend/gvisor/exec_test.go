package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// TestExecGivenUp: a command whose caller gives up while it starts does not
// run on.
func TestExecGivenUp(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	sh(t, m, "true")
	var want []string
	refused := 0
	for i := range 60 {
		length := fmt.Sprint(5000 + i)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Microsecond+time.Duration(i)*100*time.Microsecond)
		var out bytes.Buffer
		_, err := m.Exec(ctx, backend.ExecSpec{Args: []string{"sleep", length}, Stdout: &out, Stderr: &out})
		cancel()
		switch {
		case err == nil:
			want = append(want, length)
		case errors.Is(err, context.DeadlineExceeded):
			refused++
		default:
			t.Errorf("after %d: %v", i, err)
		}
	}
	t.Logf("%d of 60 were given up", refused)
	if refused == 0 {
		t.Fatal("no command was given up in time")
	}
	var got []string
	for range 50 {
		got = strings.Fields(sh(t, m, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null | sed -n 's/^sleep \\([0-9]*\\) *$/\\1/p' | sort"))
		if strings.Join(got, " ") == strings.Join(want, " ") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("commands %q run, want only those not given up: %q", got, want)
}

// TestExecUnderDestroy: a command whose sandbox is destroyed is told so, also
// where the removal takes long.
func TestExecUnderDestroy(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	p, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"sleep", "100"}})
	if err != nil {
		t.Fatal(err)
	}
	release := blockRemoval(t, m.dir)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.Destroy(short); err == nil {
		t.Fatal("Destroy removes what can't be removed")
	}
	e, err := p.Wait(short)
	if err != nil || e.Cause != flash.CauseSandboxGone || e.ExitCode != -1 {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"true"}}); !errors.Is(err, flash.Conflict) {
		t.Errorf("a command in a sandbox that goes: %v", err)
	}
	release()
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

// blockRemoval makes a directory impossible to remove until release.
func blockRemoval(t testing.TB, dir string) (release func()) {
	t.Helper()
	busy := filepath.Join(dir, "busy")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", busy, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	once := sync.OnceFunc(func() {
		if err := syscall.Unmount(busy, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	t.Cleanup(once)
	return once
}

// TestBusyMachine: who wants a machine that another act holds waits no longer
// than it means to, and Destroy not at all.
func TestBusyMachine(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	release, err := m.seize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	_, err = m.Exec(soon(), backend.ExecSpec{Args: []string{"true"}})
	_, serr := m.Snapshot(soon(), t.TempDir())
	for what, err := range map[string]error{"Exec": err, "Snapshot": serr, "Pause": m.Pause(soon()), "Resume": m.Resume(soon())} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	begin := time.Now()
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("Destroy took %s", d)
	}
	release()
	if _, err = m.Exec(t.Context(), backend.ExecSpec{Args: []string{"true"}}); !errors.Is(err, flash.Conflict) {
		t.Errorf("a command in a destroyed sandbox: %v", err)
	}
}

// TestDestroyUnderSnapshot: a snapshot of a sandbox that is destroyed fails,
// at once.
func TestDestroyUnderSnapshot(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	sh(t, m, "head -c 200000000 /dev/urandom > /dev/shm/data")
	dir := t.TempDir()
	done := make(chan error, 1)
	go func() {
		_, err := m.Snapshot(context.WithoutCancel(t.Context()), dir)
		done <- err
	}()
	for { // until the state is being written
		if names, err := os.ReadDir(dir); err != nil {
			t.Fatal(err)
		} else if len(names) == 3 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, flash.Conflict) {
			t.Errorf("the snapshot: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the snapshot goes on")
	}
	t.Logf("both were done after %s", time.Since(begin))
}
