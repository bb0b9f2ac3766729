package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// entry is one tar entry in short: type by the first field that is set.
type entry struct {
	name, body, link, hard string
	typ                    byte
	mode                   int64
	uid, gid               int
	pax                    map[string]string
}

func f(name, body string) entry  { return entry{name: name, body: body} }
func d(name string) entry        { return entry{name: name, typ: tar.TypeDir, mode: 0o755} }
func ln(name, to string) entry   { return entry{name: name, link: to} }
func hard(name, to string) entry { return entry{name: name, hard: to} }
func wh(name string) entry       { return entry{name: name, mode: 0} }
func layer(e ...entry) []entry   { return e }
func layers(l ...[]entry) [][]byte {
	var out [][]byte
	for _, es := range l {
		out = append(out, makeTar(es))
	}
	return out
}

func makeTar(es []entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range es {
		h := &tar.Header{
			Name: e.name, Mode: e.mode, Uid: e.uid, Gid: e.gid, Typeflag: e.typ, Size: int64(len(e.body)),
			ModTime: time.Unix(1000, 0), PAXRecords: e.pax, Format: tar.FormatPAX,
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		switch {
		case e.typ != 0:
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case e.hard != "":
			h.Typeflag, h.Linkname = tar.TypeLink, e.hard
		default:
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			panic(fmt.Sprintf("%+v: %v", e, err))
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func unpackAll(dir string, opts Options, tars ...[]byte) (Stats, error) {
	t, err := New(dir, opts)
	if err != nil {
		return Stats{}, err
	}
	for _, data := range tars {
		l := OpenLayer(context.Background(), bytes.NewReader(data), int64(len(data)), opts)
		if err = t.Apply(context.Background(), l); err == nil {
			_, err = io.Copy(io.Discard, l)
		}
		l.Close()
		if err != nil {
			break
		}
	}
	st, cerr := t.Close()
	if err == nil {
		err = cerr
	}
	return st, err
}

// tree lists a directory, one line for each path.
func tree(tb testing.TB, dir string) []string {
	tb.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		switch {
		case rel == ".":
			return nil
		case fi.IsDir():
			out = append(out, rel+"/")
		case fi.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			out = append(out, rel+" -> "+to)
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			out = append(out, rel+"="+string(b))
		default:
			out = append(out, rel+" "+fi.Mode().Type().String())
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestTrees(t *testing.T) {
	base := layer(d("usr/"), d("usr/lib/"), ln("lib", "usr/lib"), f("usr/lib/a", "1"), d("etc"), f("etc/x", "x"))
	for _, tc := range []struct {
		name string
		tars [][]byte
		want []string
	}{
		{"plain", layers(base), []string{"etc/", "etc/x=x", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/a=1"}},
		{"names are below the root however they begin", layers(layer(f("/abs", "1"), f("./dot", "2"), f("a//b", "3"), f("a/../c", "4"))),
			[]string{"a/", "a/b=3", "abs=1", "c=4", "dot=2"}},
		{"through a link of a lower layer", layers(base, layer(f("lib/b", "2"))),
			[]string{"etc/", "etc/x=x", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/a=1", "usr/lib/b=2"}},
		{"absolute links are the image's own", layers(layer(d("usr/lib"), ln("lib", "/usr/lib"), f("lib/b", "2"))),
			[]string{"lib -> /usr/lib", "usr/", "usr/lib/", "usr/lib/b=2"}},
		{"links that climb stay in the root", layers(layer(d("x"), ln("x/up", "../../../../.."), f("x/up/b", "2"))),
			[]string{"b=2", "x/", "x/up -> ../../../../.."}},
		{"a file is replaced, not written through", layers(layer(f("t", "keep"), ln("l", "t")), layer(f("l", "new"))),
			[]string{"l=new", "t=keep"}},
		{"hard links share", layers(layer(f("a", "1"), hard("b", "a")), layer(f("a", "2"))), []string{"a=2", "b=1"}},
		{"a hard link to itself", layers(layer(f("a", "1"), hard("a", "a"))), []string{"a=1"}},
		{"a hard link of a link", layers(layer(ln("a", "/etc/passwd"), hard("b", "a"))), []string{"a -> /etc/passwd", "b -> /etc/passwd"}},
		{"duplicates: the last one counts", layers(layer(f("a", "1"), f("a", "2"), ln("a", "x"), f("a", "3"))), []string{"a=3"}},
		{"directory becomes file", layers(layer(d("a"), f("a/b/c", "1")), layer(f("a", "2"))), []string{"a=2"}},
		{"file becomes directory", layers(layer(f("a", "1")), layer(f("a/b", "2"))), []string{"a/", "a/b=2"}},
		{"link becomes directory", layers(layer(d("t"), f("t/x", "1"), ln("a", "t")), layer(d("a"), f("a/b", "2"))),
			[]string{"a/", "a/b=2", "t/", "t/x=1"}},
		{"directory stays", layers(layer(f("a/b", "1")), layer(d("a"), f("a/c", "2"))), []string{"a/", "a/b=1", "a/c=2"}},
		{"dangling parent", layers(layer(ln("a", "nowhere"), f("a/b", "1"))), []string{"a/", "a/b=1"}},
		{"whiteout", layers(base, layer(wh("usr/lib/.wh.a"), wh(".wh.etc"))), []string{"lib -> usr/lib", "usr/", "usr/lib/"}},
		{"whiteout of nothing", layers(base, layer(wh("no/.wh.a"))),
			[]string{"etc/", "etc/x=x", "lib -> usr/lib", "no/", "usr/", "usr/lib/", "usr/lib/a=1"}},
		{"whiteout of a link leaves its target", layers(base, layer(wh(".wh.lib"))),
			[]string{"etc/", "etc/x=x", "usr/", "usr/lib/", "usr/lib/a=1"}},
		{"whiteout hides lower layers only", layers(layer(f("a/b", "1")), layer(f("a/c", "2"), wh(".wh.a"))), []string{"a/", "a/c=2"}},
		{"opaque, first", layers(layer(f("a/b", "1"), f("a/s/t", "1")), layer(d("a"), wh("a/.wh..wh..opq"), f("a/c", "2"))),
			[]string{"a/", "a/c=2"}},
		{"opaque, last", layers(layer(f("a/b", "1"), f("a/s/t", "1")), layer(f("a/s/u", "2"), wh("a/.wh..wh..opq"))),
			[]string{"a/", "a/s/", "a/s/u=2"}},
		{"opaque through a link", layers(layer(f("r/x", "1"), ln("l", "r")), layer(f("l/y", "2"), wh("r/.wh..wh..opq"))),
			[]string{"l -> r", "r/", "r/y=2"}},
		{"other storage drivers' names", layers(layer(f("a", "1"), wh(".wh..wh.plnk"), wh(".wh..wh.aufs"))), []string{"a=1"}},
		{"devices are left out, and hide", layers(layer(f("dev/null", "x")),
			layer(entry{name: "dev/null", typ: tar.TypeChar}, entry{name: "dev/sda", typ: tar.TypeBlock})), []string{"dev/"}},
		{"fifo", layers(layer(entry{name: "p", typ: tar.TypeFifo})), []string{"p p---------"}},
		{"names that are no UTF-8", layers(layer(f("a\xff\xfe", "1"), f("new\nline", "2"))), []string{"a\xff\xfe=1", "new\nline=2"}},
		{"gzip", [][]byte{zip(makeTar(base))}, []string{"etc/", "etc/x=x", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/a=1"}},
		{"zstd", [][]byte{zst(makeTar(base))}, []string{"etc/", "etc/x=x", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/a=1"}},
		{"an empty layer", [][]byte{makeTar(nil), {}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := unpackAll(dir, Options{}, tc.tars...); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, tree(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zst(b []byte) []byte {
	var out bytes.Buffer
	w, _ := zstd.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// TestRefused lists layers that are no image's: each is Invalid, and nothing
// outside the tree has changed.
func TestRefused(t *testing.T) {
	long := strings.Repeat("n", 256)
	deep := strings.Repeat("d/", 3000)
	plain := makeTar(layer(f("a", "1"), f("b", strings.Repeat("x", 100000))))
	for _, tc := range []struct {
		name string
		tars [][]byte
		opts Options
		say  string
	}{
		{"name climbs", layers(layer(f("../x", "1"))), Options{}, "leads out of the root"},
		{"name climbs later", layers(layer(f("a/../../x", "1"))), Options{}, "leads out of the root"},
		{"hard link climbs", layers(layer(hard("a", "../../outside/secret"))), Options{}, "leads out of the root"},
		{"hard link to the host by link", layers(layer(ln("l", "/"), hard("a", "l/outside/secret"))), Options{}, "not there"},
		{"hard link to nothing", layers(layer(hard("a", "b"))), Options{}, "not there"},
		{"hard link to a directory", layers(layer(d("b"), hard("a", "b"))), Options{}, "is a directory"},
		{"hard link to the root", layers(layer(hard("a", "/"))), Options{}, "link to the root"},
		{"hard link that replaces and fails", layers(layer(f("a", "1"), hard("a", "b"))), Options{}, "not there"},
		{"whiteout of the parent", layers(layer(wh("a/.wh..."))), Options{}, "no whiteout"},
		{"whiteout of itself", layers(layer(wh("a/.wh.."))), Options{}, "no whiteout"},
		{"whiteout without a name", layers(layer(wh("a/.wh."))), Options{}, "no whiteout"},
		{"links in circles", layers(layer(ln("a", "b"), ln("b", "a"), f("a/x", "1"))), Options{}, "circles"},
		{"long name", layers(layer(f(long, "1"))), Options{}, "longer than 255"},
		{"deep path", layers(layer(f(deep+"x", "1"))), Options{}, "path is longer"},
		{"deep path by links", layers(layer(d(deep[:3000]), ln("l", deep[:3000]), f("l/"+deep[:3000]+"x", "1"))), Options{}, "path is longer"},
		{"root is a file", layers(layer(f(".", ""))), Options{}, "root is no directory"},
		{"unknown type", layers(layer(entry{name: "a", typ: 'Z'})), Options{}, "unknown type"},
		{"owner out of range", layers(layer(entry{name: "a", uid: 1<<32 - 1})), Options{}, "out of range"},
		{"too many entries", layers(layer(f("a", ""), f("b", ""), f("c", ""))), Options{MaxEntries: 2}, "more than 2 files"},
		{"too many bytes", layers(layer(f("a", "12345"), f("b", "12345"))), Options{MaxBytes: 9}, "more than 9 bytes"},
		{"cut", [][]byte{plain[:5000]}, Options{}, "no complete tar"},
		{"cut in gzip", [][]byte{zip(plain)[:80]}, Options{}, "no complete tar"},
		{"cut in zstd", [][]byte{zst(plain)[:60]}, Options{}, "no complete tar"},
		{"garbage", [][]byte{bytes.Repeat([]byte("garbage "), 200)}, Options{}, "no complete tar"},
		{"bomb", [][]byte{zip(bomb(30 << 20))}, Options{RatioFloor: 1 << 20}, "times its compressed size"},
		{"bomb after the end", [][]byte{zip(append(makeTar(layer(f("a", "1"))), make([]byte, 30<<20)...))}, Options{RatioFloor: 1 << 20}, "times its compressed size"},
		{"huge sparse file", [][]byte{sparse(t, 1<<50)}, Options{}, "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := t.TempDir()
			outside, dir := filepath.Join(base, "outside"), filepath.Join(base, "dir")
			for _, p := range []string{outside, dir} {
				if err := os.Mkdir(p, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := unpackAll(dir, tc.opts, tc.tars...)
			if !errors.Is(err, flash.Invalid) || !strings.Contains(err.Error(), tc.say) {
				t.Fatalf("error is %v, want an Invalid one that says %q", err, tc.say)
			}
			if got := tree(t, outside); !slices.Equal(got, []string{"secret=s"}) {
				t.Errorf("outside has become %q", got)
			}
			if fi, err := os.Stat(filepath.Join(outside, "secret")); err != nil || fi.Sys().(*syscall.Stat_t).Nlink != 1 {
				t.Errorf("the file outside was linked: %v", err)
			}
		})
	}
}

// bomb is a tar with a file of n zeros.
func bomb(n int64) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "zeros", Size: n, Mode: 0o644})
	_, _ = io.CopyN(w, zeroReader{}, n)
	_ = w.Close()
	return b.Bytes()
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// sparse is a tar in PAX sparse format 1.0 with one file of size bytes and no data.
func sparse(t *testing.T, size int64) []byte {
	t.Helper()
	m := fmt.Sprintf("1\n%d\n0\n", size)
	body := m + strings.Repeat("\x00", 512-len(m))
	var b bytes.Buffer
	rec := func(k, v string) string {
		for n := len(k) + len(v) + 3; ; n++ {
			if s := fmt.Sprintf("%d %s=%s\n", n, k, v); len(s) == n {
				return s
			}
		}
	}
	pax := rec("GNU.sparse.major", "1") + rec("GNU.sparse.minor", "0") + rec("GNU.sparse.name", "huge") + rec("GNU.sparse.realsize", fmt.Sprint(size))
	block := func(name string, typ byte, data string) {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00", len(data)))
		h[156] = typ
		copy(h[257:], "ustar\x0000")
		copy(h[148:], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(h)
		b.WriteString(data)
		b.Write(make([]byte, (512-len(data)%512)%512))
	}
	block("PaxHeaders", 'x', pax)
	block("GNUSparseFile/huge", '0', body)
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func TestSparseFileTakesNoDisk(t *testing.T) {
	dir := t.TempDir()
	st, err := unpackAll(dir, Options{}, sparse(t, 512<<20))
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() != 512<<20 {
		t.Errorf("size is %d", fi.Size())
	}
	if blocks := fi.Sys().(*syscall.Stat_t).Blocks; blocks > 64 {
		t.Errorf("takes %d blocks of disk", blocks)
	}
	if st.Bytes > 1<<20 {
		t.Errorf("counted %d bytes", st.Bytes)
	}
}

func TestMetadata(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	_, err := unpackAll(dir, Options{}, makeTar(layer(
		entry{name: "./", typ: tar.TypeDir, mode: 0o711},
		entry{name: "ro", typ: tar.TypeDir, mode: 0o555, uid: 7, gid: 8},
		entry{name: "ro/su", body: "x", mode: 0o4755, uid: 1000, gid: 1001},
		entry{name: "tmp", typ: tar.TypeDir, mode: 0o1777},
		entry{name: "l", link: "ro", uid: 5},
		entry{name: "fifo", typ: tar.TypeFifo, mode: 0o640, uid: 6},
		entry{name: "cap", body: "c", pax: map[string]string{
			"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.mine": "1",
			"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.security.selinux": "z",
		}},
	)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		mode     uint32
		uid, gid uint32
	}{
		{".", unix.S_IFDIR | 0o711, 0, 0}, {"ro", unix.S_IFDIR | 0o555, 7, 8}, {"ro/su", unix.S_IFREG | 0o4755, 1000, 1001},
		{"tmp", unix.S_IFDIR | 0o1777, 0, 0}, {"l", unix.S_IFLNK | 0o777, 5, 0}, {"fifo", unix.S_IFIFO | 0o640, 6, 0},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, tc.name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode != tc.mode || st.Uid != tc.uid || st.Gid != tc.gid {
			t.Errorf("%s is %o of %d:%d, want %o of %d:%d", tc.name, st.Mode, st.Uid, st.Gid, tc.mode, tc.uid, tc.gid)
		}
		if st.Mtim.Sec != 1000 {
			t.Errorf("%s changed at %d, want 1000", tc.name, st.Mtim.Sec)
		}
	}
	buf := make([]byte, 4096)
	n, err := unix.Listxattr(filepath.Join(dir, "cap"), buf)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.Trim(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(got)
	if want := []string{"security.capability", "user.mine"}; !slices.Equal(got, want) {
		t.Errorf("extended attributes are %q, want %q", got, want)
	}
}

func TestVerify(t *testing.T) {
	data := makeTar(layer(f("a", "1")))
	sum := sha256.Sum256(data)
	for _, tc := range []struct {
		want string
		ok   bool
	}{{"sha256:" + hex.EncodeToString(sum[:]), true}, {"sha256:" + strings.Repeat("0", 64), false}} {
		l := OpenLayer(context.Background(), bytes.NewReader(zip(data)), 100, Options{})
		if err := l.Verify(tc.want); (err == nil) != tc.ok {
			t.Errorf("verify %s: %v", tc.want, err)
		}
		l.Close()
	}
}

func TestReserveRefuses(t *testing.T) {
	full := flash.Errorf(flash.Exhausted, "no more")
	_, err := unpackAll(t.TempDir(), Options{Reserve: func(int64) error { return full }}, makeTar(layer(f("a", "1"))))
	if !errors.Is(err, flash.Exhausted) {
		t.Errorf("error is %v", err)
	}
}

func TestCancel(t *testing.T) {
	tr, err := New(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l := OpenLayer(ctx, bytes.NewReader(makeTar(layer(f("a", "1")))), 1, Options{})
	defer l.Close()
	if err := tr.Apply(ctx, l); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if _, err := tr.Close(); err != nil {
		t.Error(err)
	}
}
