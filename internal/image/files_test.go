package image

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"golang.org/x/sys/unix"
)

// writeLayout makes an OCI image layout with images by tag.
func writeLayout(t *testing.T, dir string, images map[string]v1.Image) {
	t.Helper()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for tag, img := range images {
		if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{refNameAnnotation: tag})); err != nil {
			t.Fatal(err)
		}
	}
}

// tarDir writes a directory as a tar file.
func tarDir(t *testing.T, dir, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newTarWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFileTransports(t *testing.T) {
	dir := t.TempDir()
	one := map[string]v1.Image{"v1": testImage(t, map[string]string{"a": "1"})}
	two := map[string]v1.Image{"v1": one["v1"], "v2": testImage(t, map[string]string{"a": "2"})}
	writeLayout(t, filepath.Join(dir, "one"), one)
	writeLayout(t, filepath.Join(dir, "sub/two"), two)
	tarDir(t, filepath.Join(dir, "sub/two"), filepath.Join(dir, "two.tar"))
	s := testStore(t, Config{ImageDirs: []string{"/nowhere", dir}})
	for ref, want := range map[string]string{
		"oci:" + dir + "/one":                "1",
		"oci:" + dir + "/one:v1":             "1",
		"oci:" + dir + "/sub/../sub/two:v2":  "2",
		"oci-archive:" + dir + "/two.tar:v1": "1",
		"oci-archive:" + dir + "/two.tar:v2": "2",
	} {
		l := acquire(t, s, ref)
		wantFile(t, filepath.Join(rootfs(t, l), "a"), want)
		l.Release()
	}
	// A changed layout counts at once.
	if err := os.RemoveAll(filepath.Join(dir, "one")); err != nil {
		t.Fatal(err)
	}
	writeLayout(t, filepath.Join(dir, "one"), map[string]v1.Image{"v1": two["v2"]})
	l := acquire(t, s, "oci:"+dir+"/one:v1")
	defer l.Release()
	wantFile(t, filepath.Join(rootfs(t, l), "a"), "2")
	wantClean(t, s)
}

func TestFileTransportErrors(t *testing.T) {
	base := t.TempDir()
	dir, secret := filepath.Join(base, "images"), filepath.Join(base, "secret")
	writeLayout(t, secret, map[string]v1.Image{"v1": testImage(t, map[string]string{"a": "secret"})})
	writeLayout(t, filepath.Join(dir, "two"), map[string]v1.Image{
		"v1": testImage(t, map[string]string{"a": "1"}), "v2": testImage(t, map[string]string{"a": "2"}),
	})
	writeLayout(t, filepath.Join(dir, "holes"), map[string]v1.Image{"v1": testImage(t, map[string]string{"a": "3"})})
	if err := os.RemoveAll(filepath.Join(dir, "holes/blobs")); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"out": secret, "rel": "../secret", "linked/blobs": filepath.Join(secret, "blobs")} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	index, err := os.ReadFile(filepath.Join(secret, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"linked/index.json": string(index), "bad/index.json": "{", "junk.tar": strings.Repeat("junk", 1000)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testStore(t, Config{ImageDirs: []string{dir}})
	for _, tc := range []struct {
		ref    string
		code   flash.Code
		reason string
		say    string
	}{
		{"oci:relative", flash.Invalid, "", "not absolute"},
		{"oci:" + dir + "/two:", flash.Invalid, "", "empty"},
		{"oci:" + dir + "/none", flash.Invalid, reasonNotFound, "not found"},
		{"oci-archive:" + dir + "/none.tar", flash.Invalid, reasonNotFound, "not found"},
		{"oci:" + dir + "/two", flash.Invalid, "", "holds 2 images"},
		{"oci:" + dir + "/two:v3", flash.Invalid, reasonNotFound, "no image tagged"},
		{"oci:" + dir + "/bad", flash.Invalid, "", "malformed"},
		{"oci:" + dir + "/holes", flash.Invalid, reasonNotFound, "not found"},
		{"oci:" + secret, flash.Denied, "", "none of the directories"},
		{"oci:" + dir + "/../secret", flash.Denied, "", "none of the directories"},
		{"oci:" + dir + "/out", flash.Denied, "", "leads out"},
		{"oci:" + dir + "/rel:v1", flash.Denied, "", "leads out"},
		{"oci:" + dir + "/linked:v1", flash.Denied, "", "leads out"},
		{"docker-archive:/etc/passwd", flash.Denied, "", "none of the directories"},
		{"docker-archive:" + dir + "/junk.tar", flash.Invalid, "", "can't be read"},
		{"docker-archive:" + dir + "/fifo", flash.Invalid, "", "can't be read"},
		{"oci-archive:" + dir, flash.Invalid, "", "can't be read"},
	} {
		t.Run(tc.ref, func(t *testing.T) {
			_, err := s.Acquire(context.Background(), tc.ref)
			wantError(t, err, tc.code, tc.reason, "image: ", tc.say)
		})
	}
	_, err = testStore(t, Config{}).Acquire(context.Background(), "oci:"+dir+"/two:v1")
	wantError(t, err, flash.Denied, "", "switched off")
	if fe := flash.AsError(err); !strings.Contains(fe.Remediation, "FSB_IMAGE_DIRS") {
		t.Errorf("remediation is %q", fe.Remediation)
	}
	wantClean(t, s)
}

// TestRealImages unpacks and enters the images that the other tests run.
func TestRealImages(t *testing.T) {
	testenv.Require(t, testenv.Root)
	reg := registry.Start(t)
	for repo, kind := range map[string]string{"alpine": "alpine-python", "python": "python", "busybox": "busybox"} {
		reg.AddLayout(t, "library/"+repo+":latest", registry.Layout(t, kind))
	}
	s := testStore(t, Config{Mirrors: map[string][]string{"docker.io": {reg.URL()}}})
	for _, tc := range []struct {
		image, command, want string
	}{
		{"alpine:latest", "python3 -c \"print('Hello Python in Sandbox')\"", "Hello Python in Sandbox\n"},
		{"alpine:latest", "test -e /lib/ld-musl-*.so.1 && echo musl", "musl\n"},
		{"python", "python -c 'import ssl, sqlite3, json; print(json.__cached__ is not None)'; id -u user; stat -c %u /workspace", "True\n1000\n1000\n"},
		{"busybox", "tail -n 1 /etc/passwd | cut -d: -f1; which python3 python || echo none", "nobody\nnone\n"},
	} {
		l := acquire(t, s, tc.image)
		dir := rootfs(t, l)
		cmd := exec.Command("/bin/sh", "-c", tc.command)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
		cmd.Dir, cmd.Env = "/", l.Config().Env
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != tc.want {
			t.Errorf("%s: %s: %q (%v), want %q", tc.image, tc.command, out, err, tc.want)
		}
		if fi, err := os.Stat(filepath.Dir(dir)); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("other users may enter %s: %v %v", filepath.Dir(dir), fi.Mode(), err)
		}
		l.Release()
	}
}
