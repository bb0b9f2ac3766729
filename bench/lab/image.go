package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
)

// Layout returns the OCI image layout of an image, built from Debian packages
// unless it was built before.
func (l *Lab) Layout(ctx context.Context, kind Kind) (string, error) {
	if dir, ok := l.layouts[kind]; ok {
		return dir, nil
	}
	l.Logf("building the %s image", kind)
	dir := filepath.Join(l.dir, "images", string(kind))
	if _, err := l.run(ctx, filepath.Join(l.repo, "test/images/build.sh"), string(kind), dir); err != nil {
		return "", err
	}
	l.layouts[kind] = dir
	return dir, nil
}

// Rootfs returns a directory with the unpacked image, which nothing may write to.
func (l *Lab) Rootfs(ctx context.Context, kind Kind) (string, error) {
	if dir, ok := l.rootfs[kind]; ok {
		return dir, nil
	}
	src, err := l.Layout(ctx, kind)
	if err != nil {
		return "", err
	}
	index, err := layout.ImageIndexFromPath(src)
	if err != nil {
		return "", err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", err
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(l.dir, "rootfs", string(kind))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	files := mutate.Extract(img)
	defer func() { _ = files.Close() }()
	cmd := exec.CommandContext(ctx, "tar", "-x", "-p", "--numeric-owner", "-C", dir)
	cmd.Stdin = files
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack the %s image: %w: %s", kind, err, tail(string(out)))
	}
	l.rootfs[kind] = dir
	return dir, nil
}

// Registry starts a registry on loopback that serves the images.
func (l *Lab) Registry(ctx context.Context) (*registry.Server, error) {
	if l.reg != nil {
		return l.reg, nil
	}
	reg, err := registry.Open(registry.Options{})
	if err != nil {
		return nil, err
	}
	l.onClose("registry", func(context.Context) error { return reg.Close() })
	for _, kind := range Kinds {
		dir, err := l.Layout(ctx, kind)
		if err != nil {
			return nil, err
		}
		if err := reg.PutLayout("bench/"+string(kind)+":latest", dir); err != nil {
			return nil, err
		}
	}
	l.reg = reg
	return reg, nil
}
