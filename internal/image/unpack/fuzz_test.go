package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// parts are what fuzzed paths are made of: few, so that they meet.
var parts = []string{"a", "b", "l", "..", ".", "", ".wh.a", ".wh..wh..opq", ".wh..", ".wh...", "outside", "secret", "dir", "/", ".wh.l", "c\xff"}

// decode makes layers of arbitrary bytes: two layers of entries whose types and
// paths the bytes choose. Most bytes make valid tars, unlike a mutated tar.
func decode(data []byte, base string) [][]byte {
	types := []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeReg, tar.TypeSymlink}
	next := func() byte {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return b
	}
	path := func() string {
		var p []string
		b := next()
		for range b%4 + 1 {
			p = append(p, parts[int(next())%len(parts)])
		}
		s := strings.Join(p, "/")
		switch b >> 6 {
		case 1:
			return "/" + s
		case 2:
			return base + "/outside/" + s // where it hurts
		}
		return s
	}
	var out [][]byte
	for range 2 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for n := int(next())%12 + 1; n > 0 && len(data) > 0; n-- {
			h := &tar.Header{Name: path(), Typeflag: types[int(next())%len(types)], Mode: int64(next()) << 4, Format: tar.FormatPAX}
			switch h.Typeflag {
			case tar.TypeSymlink, tar.TypeLink:
				h.Linkname = path()
			case tar.TypeReg:
				h.Size = 1
				h.Name = strings.TrimRight(h.Name, "/")
			}
			if w.WriteHeader(h) == nil && h.Size == 1 {
				_, _ = w.Write([]byte("x"))
			}
		}
		_ = w.Close()
		out = append(out, b.Bytes())
	}
	return out
}

// FuzzUnpack checks that nothing outside the tree changes, and that whatever is
// wrong is the image's fault.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte("\x00raw"))
	f.Add([]byte("\x01\x03\x00\x02\x02\x00\x81\x00\x00\x01\x02\x0a\x00\x00"))             // l -> outside, l/secret
	f.Add([]byte("\x01\x04\x01\x03\x0b\x00\x00\x00\x82\x0b\x03\x03\x00\x01\x00\x00\x07")) // ../secret, links to it
	f.Add([]byte("\x01\x02\x01\x00\x07\x00\x10\x00\x06\x00\x10\x02\x01\x00\x00\x00\x10")) // whiteouts
	for _, l := range layers(
		layer(d("a"), ln("l", "/outside"), f2("l/secret"), hard("b", "l/secret")),
		layer(f2("../outside/secret"), hard("a", "../outside/secret"), wh("l/.wh.secret"), wh("l/.wh..wh..opq")),
	) {
		f.Add(append([]byte{0}, l...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > 1<<16 {
			return
		}
		base := t.TempDir()
		outside, dir := filepath.Join(base, "outside"), filepath.Join(base, "dir")
		for _, p := range []string{outside, dir, filepath.Join(outside, "a")} {
			if err := os.Mkdir(p, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600); err != nil {
			t.Fatal(err)
		}
		tars := [][]byte{data[1:]}
		if data[0] != 0 {
			tars = decode(data[1:], base)
		}
		_, err := unpackAll(dir, Options{MaxEntries: 1000, MaxBytes: 1 << 20, RatioFloor: 1 << 20}, tars...)
		if err != nil && !errors.Is(err, flash.Invalid) {
			t.Errorf("error is not the image's: %v", err)
		}
		if got := tree(t, outside); !slices.Equal(got, []string{"a/", "secret=s"}) {
			t.Errorf("outside has become %q", got)
		}
		fi, err := os.Lstat(filepath.Join(outside, "secret"))
		if err != nil || fi.Mode() != 0o600 || fi.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("the file outside has changed: %v %v", fi, err)
		}
		if list, err := os.ReadDir(base); err != nil || len(list) != 2 {
			t.Errorf("beside the tree there is now %v (%v)", list, err)
		}
	})
}

func f2(name string) entry { return f(name, "hostile") }
