package gvisor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

// victimVar makes the test binary a daemon that makes, uses and removes
// machines until it is killed.
const victimVar = "FSB_GVISOR_TEST_VICTIM"

func victim(arg string) int {
	words := strings.Split(arg, "\n")
	b, err := New(Config{StateDir: words[0], exe: words[2]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		s := backend.Spec{
			ID: flash.NewSandboxID(), Image: testImage(words[1]), Args: []string{"sleep", "1000"},
			Env: []string{"PATH=/bin:/usr/bin"}, Dir: "/", Hostname: "box", MemoryBytes: 128 << 20, CPUs: 1, Pids: 64,
		}
		m, err := b.Create(context.Background(), s)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		p, err := m.(backend.Execer).Exec(context.Background(), backend.ExecSpec{Args: []string{"true"}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		_, _ = p.Wait(context.Background())
		if err := m.Destroy(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

// TestKilledAnywhere kills a daemon at any line of what it does; the next one
// finds all that is left and removes it.
func TestKilledAnywhere(t *testing.T) {
	b := open(t)
	before := testenv.Take(testenv.Options{Marks: []string{b.cfg.StateDir, b.cgroup}})
	for i := range 12 {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), victimVar+"="+b.cfg.StateDir+"\n"+string(image(t))+"\n"+b.cfg.exe)
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20*time.Millisecond + time.Duration(rand.IntN(500))*time.Millisecond)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		next, err := New(b.cfg)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for h, err := range next.List(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			m, err := next.Attach(t.Context(), h)
			if err != nil {
				t.Fatalf("run %d: Attach: %v", i, err)
			}
			if err := m.Destroy(t.Context()); err != nil {
				t.Errorf("run %d: Destroy: %v", i, err)
			}
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
		t.Logf("run %d: %d machines were left", i, n)
	}
	if leaked := before.Settle(10 * time.Second); len(leaked) > 0 {
		t.Errorf("left behind: %q", leaked)
	}
}

// TestGroupWithoutDirectory: a launcher that outlived its daemon by a moment
// has made a cgroup again.
func TestGroupWithoutDirectory(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	g, err := m.cgroup()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range g.Dirs() {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var found []flash.ID
	for h, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, h.ID)
		left, err := b.Attach(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if err := left.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if len(found) != 1 || found[0] != m.id {
		t.Errorf("List has %v, want %s", found, m.id)
	}
	if _, err := b.Attach(t.Context(), m.Handle()); !errors.Is(err, flash.NotFound) {
		t.Errorf("Attach after Destroy: %v", err)
	}
}
