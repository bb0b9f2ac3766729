package image

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
	"golang.org/x/sys/unix"
)

func newTarWriter(w io.Writer) *tar.Writer { return tar.NewWriter(w) }

// randomText can't be compressed and has no zeros.
func randomText(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(rand.Text())
	}
	return b.String()[:n]
}

func names(s *Store) string {
	var out []string
	for _, img := range s.List() {
		if img.State != "failed" {
			out = append(out, img.Reference[strings.LastIndexByte(img.Reference, '/')+1:])
		}
	}
	return strings.Join(out, " ")
}

func TestEviction(t *testing.T) {
	reg := registry.Start(t)
	for _, n := range []string{"a", "b", "c", "d"} {
		reg.Add(t, n+":1", testImage(t, map[string]string{"f": randomText(100_000)}))
	}
	cfg := Config{Dir: filepath.Join(t.TempDir(), "i"), DiskBudget: 320_000}
	s := testStore(t, cfg)
	get := func(n string) *Lease { return acquire(t, s, reg.Addr()+"/"+n+":1") }
	a, b := get("a"), get("b")
	get("c").Release()
	b.Release()
	if got := names(s); got != "a:1 b:1 c:1" {
		t.Fatalf("cached are %s", got)
	}
	get("d").Release() // c was used before b was let go
	if got := names(s); got != "a:1 b:1 d:1" {
		t.Errorf("cached are %s, want c evicted", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	a.Release()

	s = testStore(t, cfg)
	a, d := get("a"), get("d")
	get("c").Release()
	if got := names(s); got != "a:1 c:1 d:1" {
		t.Errorf("after a restart cached are %s, want b evicted", got)
	}
	c := get("c")
	_, err := s.Acquire(context.Background(), reg.Addr()+"/b:1")
	wantError(t, err, flash.Exhausted, "", "budget of 320000 bytes")
	if got := names(s); got != "a:1 c:1 d:1" {
		t.Errorf("cached are %s, and all of them are in use", got)
	}
	// The tree does not fit beside them either.
	if _, err := a.Rootfs(context.Background()); !errors.Is(err, flash.Exhausted) {
		t.Errorf("unpacking beyond the budget: %v", err)
	}
	c.Release()
	d.Release()
	wantFile(t, filepath.Join(rootfs(t, a), "missing/../f"), fileOf(t, a))
	a.Release()
	wantClean(t, s)
}

func fileOf(t *testing.T, l *Lease) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(rootfs(t, l), "f"))
	if err != nil || len(b) != 100_000 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	return string(b)
}

func TestSharedLayersAreKept(t *testing.T) {
	reg := registry.Start(t)
	shared := map[string]string{"f": randomText(50_000)}
	reg.Add(t, "a:1", testImage(t, shared, map[string]string{"g": randomText(50_000)}))
	reg.Add(t, "b:1", testImage(t, shared, map[string]string{"g": randomText(50_000)}))
	reg.Add(t, "c:1", testImage(t, map[string]string{"f": randomText(60_000)}))
	s := testStore(t, Config{DiskBudget: 190_000})
	acquire(t, s, reg.Addr()+"/a:1").Release()
	b := acquire(t, s, reg.Addr()+"/b:1")
	defer b.Release()
	if n := reg.Count("GET", "/blobs/"); n != 5 {
		t.Errorf("two images with a common layer cost %d downloads, want 5", n)
	}
	acquire(t, s, reg.Addr()+"/c:1").Release()
	if got := names(s); got != "b:1 c:1" {
		t.Errorf("cached are %s, want a evicted", got)
	}
	wantClean(t, s)
	for _, d := range b.entry.parts.layers {
		if !s.intact(d) {
			t.Errorf("layer %s of an image in use is gone", d.digest)
		}
	}
}

// TestChurn lets many callers use more images than the budget holds.
func TestChurn(t *testing.T) {
	reg := registry.Start(t)
	const n = 10
	for i := range n {
		reg.Add(t, string(rune('a'+i))+":1", testImage(t, map[string]string{"f": randomText(20_000 + i)}))
	}
	s := testStore(t, Config{DiskBudget: 350_000, TagTTL: time.Millisecond})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 15 {
				k := (i*7 + w) % n
				l, err := s.Acquire(context.Background(), reg.Addr()+"/"+string(rune('a'+k))+":1")
				if err != nil {
					t.Error(err)
					continue
				}
				dir, err := l.Rootfs(context.Background())
				if err != nil {
					t.Error(err)
				} else if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || len(b) != 20_000+k {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				l.Release()
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	used := s.used
	s.mu.Unlock()
	if used > 350_000 {
		t.Errorf("%d bytes are used", used)
	}
	wantClean(t, s)
}

func TestDamagedCacheHeals(t *testing.T) {
	reg := registry.Start(t)
	reg.Add(t, "a:1", testImage(t, map[string]string{"f": "whole"}))
	s := testStore(t, Config{})
	l := acquire(t, s, reg.Addr()+"/a:1")
	d := l.entry.parts.layers[0]
	if err := os.WriteFile(s.blobPath(d.digest), make([]byte, d.size), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := l.Rootfs(context.Background())
	wantError(t, err, flash.Unavailable, "", "damaged")
	l.Release()
	l = acquire(t, s, reg.Addr()+"/a:1")
	defer l.Release()
	wantFile(t, filepath.Join(rootfs(t, l), "f"), "whole")
	wantClean(t, s)
}

func TestFullDisk(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	reg := registry.Start(t)
	reg.Add(t, "big:1", testImage(t, map[string]string{"f": randomText(2 << 20)}))
	reg.Add(t, "fits:1", testImage(t, map[string]string{"f": randomText(600 << 10)}))
	s := testStore(t, Config{Dir: filepath.Join(dir, "i")})
	_, err := s.Acquire(context.Background(), reg.Addr()+"/big:1")
	wantError(t, err, flash.Exhausted, "", "disk")
	wantClean(t, s)
	l := acquire(t, s, reg.Addr()+"/fits:1")
	_, err = l.Rootfs(context.Background())
	wantError(t, err, flash.Exhausted, "", "disk")
	l.Release()
	wantClean(t, s)
}

func BenchmarkWarmAcquire(b *testing.B) {
	reg := registry.Start(b)
	reg.Add(b, "a:1", testImage(b, map[string]string{"f": "x"}))
	s := testStore(b, Config{})
	ref := reg.Addr() + "/a:1"
	rootfs(b, acquire(b, s, ref))
	b.ReportAllocs()
	for b.Loop() {
		l, err := s.Acquire(context.Background(), ref)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := l.Rootfs(context.Background()); err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}
