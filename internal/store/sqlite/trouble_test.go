package sqlite_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/store/sqlite"
)

// asNobody runs the calling test again in a child process without privileges,
// because root may write everywhere. It returns true in that child.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	// The test binary stands below a directory that only root may enter.
	exe := filepath.Join(openDir(t), "test")
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp", "HOME=/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("without privileges: %v\n%s", err, out)
	}
	return false
}

// openDir returns a directory that every user may enter, unlike t.TempDir.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fsb-sqlite-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDirectoryNotWritable(t *testing.T) {
	if !asNobody(t) {
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "fsbd.db")
	fill(t, path, 1)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	_, err := sqlite.Open(path, sqlite.Options{})
	if err == nil || !strings.Contains(err.Error(), path) || !errors.Is(err, flash.Unavailable) {
		t.Errorf("open in a directory that is not writable: %v, want code %q and the path", err, flash.Unavailable)
	}
	_, err = sqlite.Open(filepath.Join(dir, "new.db"), sqlite.Options{})
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("create in a directory that is not writable: %v, want permission denied", err)
	}
}

func TestFileNotWritable(t *testing.T) {
	if !asNobody(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "fsbd.db")
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(path, sqlite.Options{}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("open of a file that is not writable: %v, want permission denied", err)
	}
}

func TestNoSuchDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "fsbd.db")
	if _, err := sqlite.Open(path, sqlite.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open below a directory that is not there: %v", err)
	}
}

func TestPathIsDirectory(t *testing.T) {
	if _, err := sqlite.Open(t.TempDir(), sqlite.Options{}); err == nil {
		t.Error("a directory was opened as a file")
	}
}

// TestDiskFull fills a small file system. Records written before are kept, and
// writing goes on once there is space again.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, 1<<20)
	st := open(t, filepath.Join(dir, "fsbd.db"), sqlite.Options{})
	big := record("sb-big")
	big.Env = map[string]string{"A": strings.Repeat("a", 100_000)}
	written := 0
	var full error
	for i := range 100 {
		big.ID = flash.ID(fmt.Sprintf("sb-%d", i))
		if full = st.InsertSandbox(ctx, big); full != nil {
			break
		}
		written++
	}
	var e *flash.Error
	if !errors.As(full, &e) || e.Code != flash.Exhausted || e.Remediation == "" {
		t.Fatalf("a full disk gives %v, want code %q with a remediation", full, flash.Exhausted)
	}
	got, err := st.Sandboxes(ctx)
	if err != nil || len(got) != written {
		t.Errorf("%d records after the disk was full, error %v; want %d", len(got), err, written)
	}
	for _, s := range got {
		if err := st.DeleteSandbox(ctx, s.ID); err != nil {
			t.Logf("delete on a full disk: %v", err)
		}
	}
	grow(t, dir, 8<<20)
	if err := st.InsertSandbox(ctx, record("sb-after")); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// smallDisk mounts a file system of its own size for the test.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", size))
	if errors.Is(err, syscall.EPERM) && !strings.Contains(os.Getenv("FSB_TEST_REQUIRE"), "root") {
		t.Skip("mounting a small file system needs root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func grow(t *testing.T, dir string, size int) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
}
