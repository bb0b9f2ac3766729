package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// PutLayout serves the image of an OCI image layout under "repository:tag". Its
// blobs stay in dir.
func (s *Server) PutLayout(name, dir string) error {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return fmt.Errorf("read image layout %s: %w", dir, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != 1 {
		return fmt.Errorf("image layout %s holds %d images, want 1", dir, len(manifest.Manifests))
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return err
	}
	s.blobs.addLayout(dir)
	return s.put(name, img, true)
}

func (s *Server) put(name string, img v1.Image, onDisk bool) error {
	repo, tag, ok := strings.Cut(name, ":")
	if !ok {
		return fmt.Errorf("name %q has no tag", name)
	}
	if !onDisk {
		if err := s.putBlobs(img); err != nil {
			return err
		}
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	mediaType, err := img.MediaType()
	if err != nil {
		return err
	}
	return s.putManifest(repo, tag, string(mediaType), raw)
}

// PutIndex stores an image index and the images it lists, under "repository:tag".
func (s *Server) PutIndex(name string, index v1.ImageIndex) error {
	repo, tag, ok := strings.Cut(name, ":")
	if !ok {
		return fmt.Errorf("name %q has no tag", name)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range manifest.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		if err := s.put(repo+":"+d.Digest.Hex, img, false); err != nil {
			return err
		}
	}
	raw, err := index.RawManifest()
	if err != nil {
		return err
	}
	return s.putManifest(repo, tag, string(manifest.MediaType), raw)
}

func (s *Server) putManifest(repo, tag, mediaType string, raw []byte) error {
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPut, "/v2/"+repo+"/manifests/"+tag, bytes.NewReader(raw))
	req.Header.Set("Content-Type", mediaType)
	res := httptest.NewRecorder()
	s.inner.ServeHTTP(res, req)
	if res.Code != http.StatusCreated {
		return fmt.Errorf("put manifest %s:%s: status %d: %s", repo, tag, res.Code, res.Body)
	}
	return nil
}

func (s *Server) putBlobs(img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return err
		}
		rc, err := l.Compressed()
		if err != nil {
			return err
		}
		if err := s.blobs.Put(context.Background(), "", h, rc); err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	h, err := img.ConfigName()
	if err != nil {
		return err
	}
	return s.blobs.Put(context.Background(), "", h, io.NopCloser(bytes.NewReader(config)))
}

// Start starts a registry that ends with the test.
func Start(t testing.TB, opts ...Options) *Server {
	t.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	s, err := Open(o)
	if err != nil {
		t.Fatalf("start registry: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// AddLayout is PutLayout for tests.
func (s *Server) AddLayout(t testing.TB, name, dir string) {
	t.Helper()
	if err := s.PutLayout(name, dir); err != nil {
		t.Fatalf("registry: %v", err)
	}
}

// Add is Put for tests. It returns the image's manifest digest.
func (s *Server) Add(t testing.TB, name string, img v1.Image) string {
	t.Helper()
	if err := s.Put(name, img); err != nil {
		t.Fatalf("registry: %v", err)
	}
	h, err := img.Digest()
	if err != nil {
		t.Fatalf("registry: %v", err)
	}
	return h.String()
}

// Layout builds one of the images of test/images/build.sh ("busybox", "alpine",
// "alpine-python" or "python") and returns its OCI image layout, a directory
// that ends with the test. The first build of a kind takes some seconds.
func Layout(t testing.TB, kind string) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("registry: can't tell where the repository is")
	}
	script := filepath.Join(filepath.Dir(file), "..", "..", "..", "test", "images", "build.sh")
	dir := filepath.Join(t.TempDir(), kind)
	out, err := exec.Command(script, kind, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("build test image %s: %v\n%s", kind, err, out)
	}
	return dir
}
