package image

import (
	"path/filepath"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/google/go-containerregistry/pkg/name"
)

// Transports of images that are files, as they begin a reference.
const (
	ociDir        = "oci:"
	ociArchive    = "oci-archive:"
	dockerArchive = "docker-archive:"
)

// reference says which image is meant.
type reference struct {
	given     string
	key       string         // the same for all spellings of one image
	named     name.Reference // in a registry; nil for files
	transport string         // of files
	path      string         // of files: absolute and clean
	tag       string         // of files: which image in there; "": the only one
}

// parseReference checks and takes apart what a user wrote. Its error is Invalid.
func parseReference(s string) (reference, error) {
	given := s
	s = strings.TrimSpace(s)
	if s == "" {
		return reference{}, flash.Errorf(flash.Invalid, "image: is empty; give a reference such as \"alpine:latest\"")
	}
	if len(s) > flash.MaxImageBytes || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return reference{}, flash.Errorf(flash.Invalid, "image: is too long or holds a control character")
	}
	for _, t := range []string{ociDir, ociArchive, dockerArchive} {
		if rest, ok := strings.CutPrefix(s, t); ok {
			return parseFile(given, t, rest)
		}
	}
	s = strings.TrimPrefix(s, "docker://")
	if strings.Contains(s, "://") {
		return reference{}, malformed(given, "it is a URL")
	}
	named, err := name.ParseReference(s)
	if err != nil {
		return reference{}, malformed(given, reasonOf(err))
	}
	for _, part := range strings.Split(named.Context().RepositoryStr(), "/") {
		if part == "" || part == "." || part == ".." { // the parser lets them pass, and they would become a URL
			return reference{}, malformed(given, "a part of the path is empty or made of dots")
		}
	}
	return reference{given: given, key: named.Name(), named: named}, nil
}

// parseFile reads what follows a file transport: PATH or PATH:TAG. The path ends
// at the first ':'; a tag may hold more of them ("name:tag" of a Docker archive).
func parseFile(given, transport, rest string) (reference, error) {
	path, tag, tagged := strings.Cut(rest, ":")
	if tagged && tag == "" {
		return reference{}, malformed(given, "the tag after the ':' is empty")
	}
	if !filepath.IsAbs(path) {
		return reference{}, malformed(given, "the path is not absolute")
	}
	path = filepath.Clean(path)
	return reference{given: given, key: transport + path + ":" + tag, transport: transport, path: path, tag: tag}, nil
}

func malformed(given, reason string) error {
	return flash.Errorf(flash.Invalid,
		"image: %q is no image reference (%s); give one such as \"alpine:latest\", \"registry.example/team/app@sha256:...\" or \"oci:/dir:tag\"",
		given, reason)
}

// reasonOf shortens what the parser says.
func reasonOf(err error) string {
	msg := err.Error()
	if i := strings.IndexByte(msg, '\n'); i >= 0 {
		msg = msg[:i]
	}
	return strings.TrimPrefix(msg, "could not parse reference: ")
}

// fixed reports whether the reference always means the same bytes.
func (r reference) fixed() bool {
	_, ok := r.named.(name.Digest)
	return ok
}

// shown is the reference as lists show it: short, as users write it.
func shown(key string) string {
	short := strings.TrimPrefix(key, name.DefaultRegistry+"/")
	if short != key {
		short = strings.TrimPrefix(short, "library/")
	}
	return strings.TrimSuffix(short, ":") // of a file without a tag
}
