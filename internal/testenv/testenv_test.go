package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRequired(t *testing.T) {
	for _, c := range []struct {
		list string
		want bool
	}{
		{"", false}, {"docker", true}, {"root,docker", true}, {"root, docker", true}, {"all", true}, {"root", false}, {"dockerd", false},
	} {
		if got := required(Docker, c.list); got != c.want {
			t.Errorf("required(docker, %q) = %v", c.list, got)
		}
	}
}

func TestUnknownRequirement(t *testing.T) {
	if err := Requirement("dokcer").Check(t.Context()); err == nil {
		t.Error("a requirement that does not exist is met")
	}
}

// TestSnapshotFindsLeaks leaves one of each kind that can be left without
// root, and looks for it.
func TestSnapshotFindsLeaks(t *testing.T) {
	dir, err := os.MkdirTemp("", "leak-of-a-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	mark := filepath.Base(dir)
	before := Take(Options{Marks: []string{mark + "-x"}})
	if len(before.Items) != 0 {
		t.Fatalf("there is %q already", before.Items)
	}

	file := dir + "-x"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	byArg := exec.Command("sleep", "100")
	byArg.Args[0] = mark + "-x"
	byDir := exec.Command("sleep", "100")
	byDir.Env = append(os.Environ(), "LEAK="+mark+"-x")
	for _, cmd := range []*exec.Cmd{byArg, byDir} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	leaked := strings.Join(before.Leaked(), "\n")
	if strings.Count(leaked, "process ") != 2 || !strings.Contains(leaked, "file "+file) {
		t.Errorf("leaked are:\n%s\nwant two processes and a file", leaked)
	}

	for _, cmd := range []*exec.Cmd{byArg, byDir} {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if leaked := before.Settle(5 * time.Second); len(leaked) > 0 {
		t.Errorf("still there: %q", leaked)
	}
}
