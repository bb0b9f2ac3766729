package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Names that OCI image layouts give to images, in the annotations of their index.
const (
	refNameAnnotation       = "org.opencontainers.image.ref.name"
	containerNameAnnotation = "io.containerd.image.name"
)

// layoutSource reads an OCI image layout, in a directory or in a tar.
type layoutSource struct {
	ref    reference
	open   func(name string) (io.ReadCloser, error)
	closer func()
}

// newLayoutDir reads the directory of an oci: reference.
func newLayoutDir(r reference, f *files) *layoutSource {
	return &layoutSource{ref: r, closer: f.close, open: func(name string) (io.ReadCloser, error) { return f.open(name) }}
}

func (l *layoutSource) read(name string, limit int64) ([]byte, error) {
	rc, err := l.open(name)
	if err != nil {
		return nil, fileError(l.ref, err)
	}
	defer func() { _ = rc.Close() }()
	data, err := limited(rc, limit)
	if err != nil {
		return nil, fileError(l.ref, fmt.Errorf("%s: %w", name, err))
	}
	return data, nil
}

func (l *layoutSource) root(context.Context) (descriptor, []byte, error) {
	raw, err := l.read("index.json", maxManifestBytes)
	if err != nil {
		return descriptor{}, nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return descriptor{}, nil, broken("index.json of %s is malformed", l.ref.path).WithCause(err)
	}
	d, err := pick(index.Manifests, l.ref)
	if err != nil {
		return descriptor{}, nil, err
	}
	desc := descriptor{digest: d.Digest, mediaType: d.MediaType, size: d.Size}
	raw, err = l.manifestBytes(d.Digest)
	return desc, raw, err
}

// pick finds the image that a reference names in a layout's index.
func pick(list []v1.Descriptor, r reference) (v1.Descriptor, error) {
	var names []string
	for _, d := range list {
		for _, n := range []string{d.Annotations[refNameAnnotation], d.Annotations[containerNameAnnotation]} {
			if n == "" {
				continue
			}
			if r.tag != "" && (n == r.tag || strings.HasSuffix(n, ":"+r.tag)) {
				return d, nil
			}
			names = append(names, n)
		}
	}
	if r.tag != "" {
		return v1.Descriptor{}, notFound("image: %s holds no image tagged %q, only %q", r.path, r.tag, names)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	if d, err := choose(list); err == nil && len(names) == 0 {
		return d, nil // one image for several platforms
	}
	return v1.Descriptor{}, broken("%s holds %d images; add a tag, one of %q", r.path, len(list), names)
}

func (l *layoutSource) manifest(_ context.Context, d descriptor) ([]byte, error) {
	return l.manifestBytes(d.digest)
}

func (l *layoutSource) manifestBytes(h v1.Hash) ([]byte, error) {
	if h.Algorithm != "sha256" {
		return nil, broken("it uses digests of kind %q, only sha256 is supported", h.Algorithm)
	}
	raw, err := l.read("blobs/sha256/"+h.Hex, maxManifestBytes)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != h.Hex {
		return nil, broken("the manifest %s in %s has another digest", h, l.ref.path)
	}
	return raw, nil
}

func (l *layoutSource) blob(_ context.Context, d descriptor) (io.ReadCloser, error) {
	rc, err := l.open("blobs/" + d.digest.Algorithm + "/" + d.digest.Hex)
	if err != nil {
		return nil, fileError(l.ref, err)
	}
	return rc, nil
}

func (l *layoutSource) shared() bool { return false }
func (l *layoutSource) close()       { l.closer() }
