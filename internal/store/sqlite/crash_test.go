package sqlite_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/store/sqlite"
)

// TestKilledWriter: what a returned call wrote survives a kill -9. A child
// writes and reports each id; it is killed in the middle.
func TestKilledWriter(t *testing.T) {
	if path := os.Getenv("FSB_SQLITE_TEST_WRITE"); path != "" {
		st := open(t, path, sqlite.Options{})
		for i := 0; ; i++ {
			id := flash.ID(fmt.Sprintf("sb-%06d", i))
			if err := st.InsertSandbox(ctx, record(id)); err != nil {
				t.Fatal(err)
			}
			fmt.Println(id)
		}
	}
	path := filepath.Join(t.TempDir(), "fsbd.db")
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilledWriter$")
	cmd.Env = append(os.Environ(), "FSB_SQLITE_TEST_WRITE="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reported []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "sb-") {
			t.Errorf("the child says %q", lines.Text())
			continue
		}
		reported = append(reported, lines.Text())
		if len(reported) == 500 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(reported) < 500 {
		t.Fatalf("the child ended by itself after %d records: %v", len(reported), err)
	}

	got, err := open(t, path, sqlite.Options{}).Sandboxes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, s := range got {
		found[string(s.ID)] = true
	}
	for _, id := range reported {
		if !found[id] {
			t.Errorf("%s was reported as written and is lost", id)
		}
	}
	if left, _ := filepath.Glob(path + ".corrupt-*"); len(left) != 0 {
		t.Errorf("the kill damaged the file: %v", left)
	}
}

func BenchmarkUpdate(b *testing.B) {
	st := open(b, filepath.Join(b.TempDir(), "fsbd.db"), sqlite.Options{})
	s := record("sb-one")
	if err := st.InsertSandbox(ctx, s); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := st.UpdateSandbox(ctx, s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInsertDelete(b *testing.B) {
	st := open(b, filepath.Join(b.TempDir(), "fsbd.db"), sqlite.Options{})
	for b.Loop() {
		if err := st.InsertSandbox(ctx, record("sb-one")); err != nil {
			b.Fatal(err)
		}
		if err := st.DeleteSandbox(ctx, "sb-one"); err != nil {
			b.Fatal(err)
		}
	}
}
