package image

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// FuzzParseReference checks that a reference is either taken apart into
// something safe to use, or refused as invalid.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"alpine", "alpine:latest", "docker.io/library/alpine:3", "localhost:5000/a/b:c", "[::1]:5000/a", "UPPER", "a@sha256:" + strings.Repeat("0", 64),
		"a@sha256:xyz", "oci:/images/x:tag", "oci:x", "oci-archive:/a/../../etc/passwd", "docker-archive:/a.tar:name:tag", "docker://alpine",
		"https://x/y", "a b", "../x", "a/../b", "", ":", "@", "oci:", "oci:/", "a:b:c", "\x00", "é", strings.Repeat("a/", 200) + "a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseReference(s)
		if err != nil {
			if !errors.Is(err, flash.Invalid) || !strings.HasPrefix(err.Error(), "image: ") {
				t.Errorf("%q: error is %v", s, err)
			}
			return
		}
		if r.given != s || r.key == "" || shown(r.key) == "" {
			t.Errorf("%q became %+v", s, r)
		}
		if r.named == nil {
			if !filepath.IsAbs(r.path) || r.path != filepath.Clean(r.path) {
				t.Errorf("%q has the path %q", s, r.path)
			}
			return
		}
		if strings.Contains("/"+r.named.Context().RepositoryStr()+"/", "/../") {
			t.Errorf("%q has the repository %q", s, r.named.Context().RepositoryStr())
		}
		again, err := parseReference(r.key)
		if err != nil || again.key != r.key {
			t.Errorf("%q has the key %q, which is parsed as %q (%v)", s, r.key, again.key, err)
		}
	})
}
