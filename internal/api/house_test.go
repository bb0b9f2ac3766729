package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/client"
	"github.com/flash-sandbox/flash-sandbox/internal/api/rpc"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/fake"
	"github.com/flash-sandbox/flash-sandbox/internal/manager"
	"github.com/flash-sandbox/flash-sandbox/internal/server"
	"github.com/flash-sandbox/flash-sandbox/internal/store/memory"
)

const outputLimit = 256 << 10

// images has every image but those named "missing...". Those named "plain..."
// have few programs. Machines of the fake backend see the host's files, so
// an image is no more than its config here.
type images struct {
	plain string // directory with few programs
	mu    sync.Mutex
	held  int
}

type lease struct {
	from *images
	ref  string
	once sync.Once
}

func (l *lease) Reference() string { return l.ref }
func (l *lease) Digest() string    { return "sha256:" + l.ref }
func (l *lease) Config() backend.ImageConfig {
	path := os.Getenv("PATH")
	if strings.HasPrefix(l.ref, "plain") {
		path = l.from.plain
	}
	return backend.ImageConfig{Env: []string{"PATH=" + path}, Cmd: []string{"sleep", "600"}}
}

func (l *lease) Release() {
	l.once.Do(func() {
		l.from.mu.Lock()
		defer l.from.mu.Unlock()
		l.from.held--
	})
}

func (im *images) Acquire(_ context.Context, ref string) (manager.Lease, error) {
	if strings.HasPrefix(ref, "missing") {
		return nil, &flash.Error{Code: flash.Invalid, Reason: "image_not_found", Message: "image: no registry has " + ref}
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	im.held++
	return &lease{from: im, ref: ref}, nil
}

func (im *images) AcquireDigest(ctx context.Context, digest string) (manager.Lease, error) {
	return im.Acquire(ctx, strings.TrimPrefix(digest, "sha256:"))
}

func (im *images) List() []flash.Image { return nil }

// openManager returns a manager over the fake backend, and checks at the
// test's end that nothing is left.
func openManager(t testing.TB) *manager.Manager {
	t.Helper()
	dir := t.TempDir()
	im := &images{plain: filepath.Join(dir, "bin")}
	if err := os.Mkdir(im.plain, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat"} {
		if err := os.Symlink("/bin/"+name, filepath.Join(im.plain, name)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := manager.New(manager.Options{
		Backends:    []backend.Backend{fake.New(fake.Config{Dir: filepath.Join(dir, "machines")})},
		Images:      im,
		Store:       memory.New(),
		SnapshotDir: filepath.Join(dir, "snapshots"),
		Logger:      slog.New(slog.DiscardHandler),
		OutputLimit: outputLimit,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = m.Run(ctx) }()
	t.Cleanup(func() {
		left, err := m.List(context.Background())
		if err != nil || len(left) > 0 {
			t.Errorf("sandboxes are left: %v %v", left, err)
		}
		for _, sb := range left {
			_ = m.Delete(context.Background(), sb.ID, flash.DeleteOptions{})
		}
		cancel()
		<-ended
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if machines, _ := os.ReadDir(filepath.Join(dir, "machines")); len(machines) > 0 {
			t.Errorf("machines are left: %v", machines)
		}
	})
	return m
}

// serve returns a running server for svc.
func serve(t testing.TB, svc flash.Service, change ...func(*server.Options)) *server.Server {
	t.Helper()
	o := server.Options{
		HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", Service: svc, Version: "test", Node: "here",
		BasePaths: []string{"/v1/service/sandbox"}, DrainTimeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
	}
	for _, c := range change {
		c(&o)
	}
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

func restClient(t testing.TB, address string) *client.Client {
	t.Helper()
	c, err := client.New(address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func rpcClient(t testing.TB, base string) *rpc.Client {
	t.Helper()
	transport := rpc.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	return rpc.NewClient(base, &http.Client{Transport: transport})
}
