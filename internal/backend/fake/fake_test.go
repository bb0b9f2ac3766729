package fake_test

import (
	"os"
	"os/user"
	"strconv"
	"testing"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/backendtest"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/fake"
)

func TestMain(m *testing.M) {
	backendtest.Main(m, func(arg string) (backend.Backend, backend.Image, error) {
		return fake.New(fake.Config{Dir: arg}), nil, nil
	})
}

func subject(t testing.TB) backendtest.Subject {
	t.Helper()
	dir, err := os.MkdirTemp("", "fsb-fake-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // commands run as other users, too
		t.Fatal(err)
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return backendtest.Subject{
		New:   func(testing.TB) backend.Backend { return fake.New(fake.Config{Dir: dir}) },
		Arg:   dir,
		User:  backendtest.User{Name: u.Username, UID: uid, GID: gid},
		Marks: []string{dir},
	}
}

func TestBackend(t *testing.T) { backendtest.Run(t, subject(t)) }

func BenchmarkBackend(b *testing.B) { backendtest.Bench(b, subject(b)) }
