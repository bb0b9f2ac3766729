package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// source is where an image comes from: a registry with its mirrors, or a file.
type source interface {
	// root returns the manifest or index that the reference names.
	root(ctx context.Context) (descriptor, []byte, error)
	// manifest returns a manifest that an index lists.
	manifest(ctx context.Context, d descriptor) ([]byte, error)
	// blob opens a config or layer. Its contents are not to be trusted.
	blob(ctx context.Context, d descriptor) (io.ReadCloser, error)
	// shared reports whether blob works for as long as the store is open, not
	// only until close.
	shared() bool
	close()
}

// descriptor is the part of a v1.Descriptor that matters here.
type descriptor struct {
	digest    v1.Hash
	mediaType types.MediaType
	size      int64
}

// Bounds on what a manifest may ask for.
const (
	maxManifestBytes = 8 << 20
	maxConfigBytes   = 16 << 20
	maxLayers        = 1024
	maxLayerBytes    = 1 << 40
)

// resolved is an image for this platform whose manifest is known.
type resolved struct {
	root     v1.Hash // what the reference names: an index or the manifest itself
	digest   v1.Hash // of the manifest
	manifest []byte
	config   descriptor
	layers   []descriptor
}

// resolve finds the image for this platform behind a source's root.
func resolve(ctx context.Context, src source) (resolved, error) {
	root, raw, err := src.root(ctx)
	if err != nil {
		return resolved{}, err
	}
	r := resolved{root: root.digest, digest: root.digest, manifest: raw}
	if isIndex(root.mediaType, raw) {
		index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
		if err != nil {
			return resolved{}, broken("its index is malformed").WithCause(err)
		}
		d, err := choose(index.Manifests)
		if err != nil {
			return resolved{}, err
		}
		if d.Size > maxManifestBytes {
			return resolved{}, broken("its manifest is larger than %d bytes", maxManifestBytes)
		}
		r.digest = d.Digest
		if r.manifest, err = src.manifest(ctx, descriptor{digest: d.Digest, mediaType: d.MediaType, size: d.Size}); err != nil {
			return resolved{}, err
		}
	}
	err = r.parse()
	return r, err
}

// parse reads the manifest and checks what it asks for.
func (r *resolved) parse() error {
	m, err := v1.ParseManifest(bytes.NewReader(r.manifest))
	if err != nil {
		return broken("its manifest is malformed").WithCause(err)
	}
	if m.SchemaVersion == 1 {
		return flash.Errorf(flash.Invalid, "image: has a manifest of schema 1, which registries gave up in 2017; push it anew")
	}
	if m.Config.Digest.Hex == "" || m.Config.Size <= 0 {
		return broken("its manifest names no config")
	}
	if m.Config.Size > maxConfigBytes {
		return broken("its config is larger than %d bytes", maxConfigBytes)
	}
	if len(m.Layers) > maxLayers {
		return broken("it has more than %d layers", maxLayers)
	}
	r.config = descriptor{digest: m.Config.Digest, mediaType: m.Config.MediaType, size: m.Config.Size}
	for _, l := range m.Layers {
		if l.Size < 0 || l.Size > maxLayerBytes {
			return broken("the size of a layer, %d, is out of range", l.Size)
		}
		r.layers = append(r.layers, descriptor{digest: l.Digest, mediaType: l.MediaType, size: l.Size})
	}
	for _, d := range append([]descriptor{r.config, {digest: r.digest}}, r.layers...) {
		if d.digest.Algorithm != "sha256" {
			return broken("it uses digests of kind %q, only sha256 is supported", d.digest.Algorithm)
		}
	}
	return nil
}

func isIndex(mt types.MediaType, raw []byte) bool {
	if mt.IsIndex() {
		return true
	}
	if mt.IsImage() {
		return false
	}
	var probe struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	return json.Unmarshal(raw, &probe) == nil && len(probe.Manifests) > 0
}

// choose picks the manifest for this host from an index.
func choose(list []v1.Descriptor) (v1.Descriptor, error) {
	var has []string
	best, score := -1, 0
	for i, d := range list {
		if !d.MediaType.IsImage() && d.MediaType != "" {
			continue
		}
		if d.Platform == nil {
			if score < 1 {
				best, score = i, 1
			}
			continue
		}
		if d.Platform.OS == "unknown" { // an attestation, not an image
			continue
		}
		has = append(has, d.Platform.String())
		if n := fit(*d.Platform); n > score {
			best, score = i, n
		}
	}
	if best < 0 {
		return v1.Descriptor{}, flash.Errorf(flash.Invalid, "image: there is none for linux/%s, only for %s",
			runtime.GOARCH, strings.Join(has, ", "))
	}
	return list[best], nil
}

// fit says how well a platform fits this host: 0 not at all, more is better.
func fit(p v1.Platform) int {
	if p.OS != "linux" || p.Architecture != runtime.GOARCH {
		return 0
	}
	plain := map[string]string{"arm64": "v8", "arm": "v7", "amd64": "v1"}[runtime.GOARCH]
	switch p.Variant {
	case "", plain:
		return 4
	case "v6", "v5": // older ARM runs on newer
		return 3
	}
	return 2
}

func broken(format string, args ...any) *flash.Error {
	return flash.Errorf(flash.Invalid, "image: can't be used: %s", fmt.Sprintf(format, args...))
}
