package registry

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func pull(t *testing.T, s *Server, repoTag string, opts ...remote.Option) (v1.Image, error) {
	t.Helper()
	ref, err := name.ParseReference(s.Addr() + "/" + repoTag)
	if err != nil {
		t.Fatal(err)
	}
	opts = append(opts, remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
	return remote.Image(ref, opts...)
}

func TestServesLayouts(t *testing.T) {
	s := Start(t)
	for _, kind := range []string{"busybox", "alpine"} {
		s.AddLayout(t, "library/"+kind+":latest", Layout(t, kind))
	}
	want := map[string]int{"busybox": 1, "alpine": 2}
	for kind, n := range want {
		img, err := pull(t, s, "library/"+kind+":latest")
		if err != nil {
			t.Fatal(err)
		}
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		if len(layers) != n {
			t.Errorf("%s has %d layers, want %d", kind, len(layers), n)
		}
	}
	if got := s.Count(http.MethodGet, "/manifests/"); got != 2 {
		t.Errorf("counted %d manifest requests, want 2", got)
	}
	if _, err := pull(t, s, "library/none:latest"); err == nil {
		t.Error("an image that nobody put was served")
	}
}

func TestAuth(t *testing.T) {
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	right := remote.WithAuth(&authn.Basic{Username: "u", Password: "p"})
	wrong := remote.WithAuth(&authn.Basic{Username: "u", Password: "q"})
	for _, tc := range []struct {
		auth      Auth
		anonymous bool
		known     bool
	}{{AuthNone, true, true}, {AuthBasic, false, true}, {AuthToken, false, true}, {AuthBroken, false, false}} {
		t.Run(string("auth-"+tc.auth), func(t *testing.T) {
			s := Start(t, Options{Auth: tc.auth, User: "u", Password: "p"})
			s.Add(t, "a/b:c", img)
			if _, err := pull(t, s, "a/b:c"); (err == nil) != tc.anonymous {
				t.Errorf("without credentials: %v", err)
			}
			if _, err := pull(t, s, "a/b:c", right); (err == nil) != tc.known {
				t.Errorf("with credentials: %v", err)
			}
			if _, err := pull(t, s, "a/b:c", wrong); (err == nil) != tc.anonymous {
				t.Errorf("with wrong credentials: %v", err)
			}
		})
	}
}

func TestImagesAreReproducible(t *testing.T) {
	var first string
	for range 2 {
		t.Setenv("FSB_TEST_CACHE", t.TempDir())
		index, err := os.ReadFile(filepath.Join(Layout(t, "alpine"), "index.json"))
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = string(index)
		} else if string(index) != first {
			t.Errorf("built twice, the image is\n%s\nand\n%s", first, index)
		}
	}
}
