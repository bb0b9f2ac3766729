package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
)

// With these set, the test binary stands in for a daemon that gets killed.
const (
	crashDirVar = "FSB_TEST_CRASH_DIR"
	crashRefVar = "FSB_TEST_CRASH_REF"
)

func crashChild(dir, ref string) error {
	s, err := Open(Config{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println("open")
	l, err := s.Acquire(context.Background(), ref)
	if err != nil {
		return err
	}
	_, err = l.Rootfs(context.Background())
	return err
}

// TestKilledMidway kills a process that pulls and unpacks, at several moments,
// and expects the next one to find a cache that is whole.
func TestKilledMidway(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reg := registry.Start(t)
	files := map[string]string{}
	for i := range 200 {
		files[fmt.Sprintf("d%d/f%d", i%7, i)] = randomText(5_000)
	}
	reg.Add(t, "app:v1", testImage(t, files, map[string]string{"last": randomText(200_000)}))
	reg.Intercept(registry.Slow(8_000_000))
	ref := reg.Addr() + "/app:v1"
	dir := filepath.Join(t.TempDir(), "i")
	for _, after := range []time.Duration{0, 20, 60, 120, 200, 300} {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), crashDirVar+"="+dir, crashRefVar+"="+ref)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 8)); err != nil { // it has opened the store
			t.Fatal(err)
		}
		time.Sleep(after * time.Millisecond)
		_ = cmd.Process.Kill() // it may be through already
		_ = cmd.Wait()

		s := testStore(t, Config{Dir: dir})
		wantClean(t, s)
		l := acquire(t, s, ref)
		root := rootfs(t, l)
		for name, want := range files {
			wantFile(t, filepath.Join(root, name), want)
		}
		wantClean(t, s)
		l.Release()
		s.mu.Lock()
		trash := s.forgetLocked(l.entry)
		s.mu.Unlock()
		s.empty(trash)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
