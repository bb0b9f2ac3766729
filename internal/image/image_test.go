package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirVar); dir != "" {
		if err := crashChild(dir, os.Getenv(crashRefVar)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// testImage makes an image of one layer for each map of files.
func testImage(t testing.TB, layers ...map[string]string) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, files := range layers {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, body := range files {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, body); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer(b.Bytes(), types.OCIUncompressedLayer)); err != nil {
			t.Fatal(err)
		}
	}
	img, err := mutate.ConfigFile(img, configOf(t, img))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func configOf(t testing.TB, img v1.Image) *v1.ConfigFile {
	t.Helper()
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.Config = v1.Config{
		Env: []string{"A=1", "PATH=/bin"}, WorkingDir: "/w", User: "u:g", Entrypoint: []string{"/e"}, Cmd: []string{"c", "d"},
	}
	return cfg
}

func testStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "images")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func acquire(t testing.TB, s *Store, ref string) *Lease {
	t.Helper()
	l, err := s.Acquire(context.Background(), ref)
	if err != nil {
		t.Fatalf("acquire %s: %v", ref, err)
	}
	return l
}

func rootfs(t testing.TB, l *Lease) string {
	t.Helper()
	dir, err := l.Rootfs(context.Background())
	if err != nil {
		t.Fatalf("rootfs: %v", err)
	}
	return dir
}

func wantFile(t testing.TB, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
	}
}

// wantClean checks that nothing is left of work in progress, and that what is
// counted is what is there.
func wantClean(t testing.TB, s *Store) {
	t.Helper()
	for _, dir := range []string{"tmp", "trash"} {
		// A download that everybody has left removes its file a moment later.
		list, err := os.ReadDir(s.path(dir))
		for end := time.Now().Add(5 * time.Second); len(list) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			list, err = os.ReadDir(s.path(dir))
		}
		if err != nil || len(list) > 0 {
			t.Errorf("%s holds %v (%v)", dir, list, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reserved != 0 || len(s.pinned) != 0 || len(s.pulls) != 0 {
		t.Errorf("left: %d bytes reserved, %v pinned, %d pulls", s.reserved, s.pinned, len(s.pulls))
	}
	var sum int64
	for _, n := range s.blobs {
		sum += n
	}
	for _, e := range s.images {
		if e.unpacked {
			sum += e.rootfsBytes
		}
	}
	if sum != s.used {
		t.Errorf("counts %d bytes, and the parts are %d", s.used, sum)
	}
	for name, size := range s.blobs {
		fi, err := os.Stat(s.path("blobs", strings.Replace(name, ":", "/", 1)))
		if err != nil || fi.Size() != size {
			t.Errorf("blob %s: %v, want %d bytes", name, err, size)
		}
	}
}

func TestPullAndUnpack(t *testing.T) {
	reg := registry.Start(t)
	img := testImage(t, map[string]string{"etc/a": "1", "b": "2"}, map[string]string{"etc/a": "3", ".wh.b": ""})
	digest := reg.Add(t, "team/app:v1", img)
	s := testStore(t, Config{})
	ref := reg.Addr() + "/team/app:v1"
	l := acquire(t, s, ref)
	if l.Reference() != ref || l.Digest() != digest {
		t.Errorf("lease is of %s, %s", l.Reference(), l.Digest())
	}
	cfg := l.Config()
	if diff := cmp.Diff([]string{"A=1", "PATH=/bin"}, cfg.Env); diff != "" || cfg.WorkingDir != "/w" || cfg.User != "u:g" ||
		cfg.Entrypoint[0] != "/e" || len(cfg.Cmd) != 2 {
		t.Errorf("config is %+v", cfg)
	}
	dir := rootfs(t, l)
	wantFile(t, filepath.Join(dir, "etc/a"), "3")
	if _, err := os.Lstat(filepath.Join(dir, "b")); err == nil {
		t.Error("a file that a whiteout hides is there")
	}
	if again := rootfs(t, l); again != dir {
		t.Errorf("second call gave %s, the first %s", again, dir)
	}
	list := s.List()
	if len(list) != 1 || list[0].Reference != ref || list[0].State != "ready" || list[0].Leases != 1 || list[0].SizeBytes == 0 {
		t.Errorf("list is %+v", list)
	}
	l.Release()
	l.Release()
	if n := s.List()[0].Leases; n != 0 {
		t.Errorf("after release there are %d leases", n)
	}
	if _, err := l.Rootfs(context.Background()); err == nil {
		t.Error("a released lease gave a directory")
	}
	reg.Reset()
	acquire(t, s, ref).Release()
	acquire(t, s, reg.Addr()+"/team/app@"+digest).Release()
	if n := reg.Count(http.MethodGet, "/blobs/"); n != 0 {
		t.Errorf("a cached image cost %d downloads", n)
	}
	wantClean(t, s)
}

func TestConcurrentAcquiresPullOnce(t *testing.T) {
	reg := registry.Start(t)
	img := testImage(t, map[string]string{"a": strings.Repeat("x", 100000)}, map[string]string{"b": strings.Repeat("y", 100000)})
	reg.Add(t, "app:v1", img)
	reg.Add(t, "app:v2", img)
	reg.Intercept(registry.Slow(200_000))
	s := testStore(t, Config{})
	var wg sync.WaitGroup
	dirs := make([]string, 50)
	for i := range dirs {
		wg.Go(func() {
			l, err := s.Acquire(context.Background(), reg.Addr()+"/app:v"+string(rune('1'+i%2)))
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Release()
			dirs[i], err = l.Rootfs(context.Background())
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, d := range dirs {
		if d != dirs[0] || d == "" {
			t.Errorf("directories differ: %q and %q", d, dirs[0])
		}
	}
	if n := reg.Count(http.MethodGet, "/blobs/"); n != 3 {
		t.Errorf("50 callers cost %d downloads, want 3: config and two layers", n)
	}
	wantClean(t, s)
}

func TestCancelFreesOnlyThatWaiter(t *testing.T) {
	reg := registry.Start(t)
	reg.Add(t, "app:v1", testImage(t, map[string]string{"a": strings.Repeat("x", 300000)}))
	reg.Intercept(registry.Slow(400_000))
	s := testStore(t, Config{})
	ref := reg.Addr() + "/app:v1"
	leaving, leave := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() {
		_, err := s.Acquire(leaving, ref)
		left <- err
	}()
	stayed := make(chan error, 1)
	go func() {
		l, err := s.Acquire(context.Background(), ref)
		if err == nil {
			l.Release()
		}
		stayed <- err
	}()
	waitFor(t, func() bool { p := s.List(); return len(p) == 1 && p[0].DoneBytes > 0 })
	if p := s.List()[0]; p.State != "pulling" || p.WantBytes <= p.DoneBytes {
		t.Errorf("progress is %+v", p)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the waiter that left got %v", err)
	}
	if err := <-stayed; err != nil {
		t.Errorf("the other one got %v", err)
	}
	wantClean(t, s)
}

func TestPullEndsWhenAllHaveLeft(t *testing.T) {
	reg := registry.Start(t)
	reg.Add(t, "app:v1", testImage(t, map[string]string{"a": strings.Repeat("x", 300000)}))
	reg.Intercept(registry.Stall(1000))
	s := testStore(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := s.Acquire(ctx, reg.Addr()+"/app:v1")
		done <- err
	}()
	waitFor(t, func() bool { p := s.List(); return len(p) == 1 && p[0].DoneBytes > 0 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	waitFor(t, func() bool { return len(s.List()) == 0 })
	reg.Intercept(nil)
	acquire(t, s, reg.Addr()+"/app:v1").Release()
	wantClean(t, s)
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for range 1000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited 10 seconds in vain")
}

func TestWriteArchive(t *testing.T) {
	reg := registry.Start(t)
	img := testImage(t, map[string]string{"a": "1"}, map[string]string{"b": "2"})
	reg.Add(t, "app:v1", img)
	dir := t.TempDir()
	s := testStore(t, Config{ImageDirs: []string{dir}})
	l := acquire(t, s, reg.Addr()+"/app:v1")
	defer l.Release()
	file := filepath.Join(dir, "app.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.WriteArchive(context.Background(), f, "fsb/app:1"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	back := acquire(t, s, "docker-archive:"+file+":fsb/app:1")
	defer back.Release()
	if back.ConfigDigest() != l.ConfigDigest() {
		t.Errorf("config is %s, was %s", back.ConfigDigest(), l.ConfigDigest())
	}
	wantFile(t, filepath.Join(rootfs(t, back), "b"), "2")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.WriteArchive(ctx, io.Discard, "a:b"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestZstdLayers checks that engines which don't know zstd get something else.
func TestZstdLayers(t *testing.T) {
	var plain bytes.Buffer
	w := newTarWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Name: "z", Mode: 0o600, Size: 4, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("zstd")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = enc.Close() }()
	sum := sha256.Sum256(plain.Bytes())
	layer := zstdLayer{
		Layer: static.NewLayer(enc.EncodeAll(plain.Bytes(), nil), types.OCILayerZStd), diffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
	}
	img, err := mutate.AppendLayers(testImage(t), layer)
	if err != nil {
		t.Fatal(err)
	}
	reg := registry.Start(t)
	reg.Add(t, "app:v1", img)
	dir := t.TempDir()
	s := testStore(t, Config{ImageDirs: []string{dir}})
	l := acquire(t, s, reg.Addr()+"/app:v1")
	defer l.Release()
	wantFile(t, filepath.Join(rootfs(t, l), "z"), "zstd")
	f, err := os.Create(filepath.Join(dir, "x.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.WriteArchive(context.Background(), f, "x:1"), f.Close()); err != nil {
		t.Fatal(err)
	}
	back := acquire(t, s, "docker-archive:"+dir+"/x.tar")
	defer back.Release()
	if got := back.entry.parts.layers[0].digest.Hex; got != hex.EncodeToString(sum[:]) {
		t.Errorf("the layer in the archive is %s, want the plain tar", got)
	}
}

type zstdLayer struct {
	v1.Layer
	diffID v1.Hash
}

func (l zstdLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

func TestSurvivesRestart(t *testing.T) {
	reg := registry.Start(t)
	digest := reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
	cfg := Config{Dir: filepath.Join(t.TempDir(), "i")}
	s := testStore(t, cfg)
	l := acquire(t, s, reg.Addr()+"/app:v1")
	dir := rootfs(t, l)
	used := s.used
	if _, err := Open(cfg); !errors.Is(err, flash.Conflict) {
		t.Errorf("a second store on the same directory: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// What a crash may leave.
	for _, p := range []string{"tmp/rootfs-1/x", "trash/y", "blobs/sha256/" + strings.Repeat("0", 64), "rootfs/" + strings.Repeat("1", 64) + "/z"} {
		p = filepath.Join(cfg.Dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("left over"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := reg.Close(); err != nil {
		t.Fatal(err)
	}
	s = testStore(t, cfg)
	wantClean(t, s)
	if s.used != used {
		t.Errorf("counts %d bytes, before the restart %d", s.used, used)
	}
	for _, p := range []string{"blobs/sha256/" + strings.Repeat("0", 64), "rootfs/" + strings.Repeat("1", 64)} {
		if _, err := os.Lstat(filepath.Join(cfg.Dir, p)); err == nil {
			t.Errorf("%s is still there", p)
		}
	}
	again, err := s.AcquireDigest(context.Background(), digest)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Release()
	if got := rootfs(t, again); got != dir {
		t.Errorf("directory is %s, was %s", got, dir)
	}
	if again.Reference() != reg.Addr()+"/app:v1" {
		t.Errorf("reference is %s", again.Reference())
	}
	if _, err := s.AcquireDigest(context.Background(), "sha256:"+strings.Repeat("a", 64)); !errors.Is(err, flash.NotFound) {
		t.Errorf("unknown digest: %v", err)
	}
}

// TestUnsettledTreesAreNotTrusted plays a host that lost power: what was
// unpacked before it is unpacked again.
func TestUnsettledTreesAreNotTrusted(t *testing.T) {
	reg := registry.Start(t)
	reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
	cfg := Config{Dir: filepath.Join(t.TempDir(), "i")}
	s := testStore(t, cfg)
	l := acquire(t, s, reg.Addr()+"/app:v1")
	file := filepath.Join(rootfs(t, l), "a")
	l.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, "index.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var index map[string]any
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	index["boot"], index["settled"] = "another", false
	if data, err = json.Marshal(index); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = testStore(t, cfg)
	l = acquire(t, s, reg.Addr()+"/app:v1")
	defer l.Release()
	wantFile(t, filepath.Join(rootfs(t, l), "a"), "1")
}
