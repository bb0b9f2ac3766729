package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/image"
	"github.com/flash-sandbox/flash-sandbox/internal/manager"
)

// imageStore lets the manager use an image.Store: the same calls, with the
// lease as the manager's interface.
type imageStore struct{ *image.Store }

func (s imageStore) Acquire(ctx context.Context, ref string) (manager.Lease, error) {
	l, err := s.Store.Acquire(ctx, ref)
	if err != nil {
		return nil, err // not a nil *Lease in an interface
	}
	return l, nil
}

func (s imageStore) AcquireDigest(ctx context.Context, digest string) (manager.Lease, error) {
	l, err := s.Store.AcquireDigest(ctx, digest)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (s imageStore) List() []flash.Image { return s.Store.List() }

func (d *daemon) imageConfig() (image.Config, error) {
	mirrors, err := image.ParseMirrors(strings.Join(d.config.RegistryMirrors, ","))
	if err != nil {
		return image.Config{}, fmt.Errorf("FSB_REGISTRY_MIRRORS: %w", err)
	}
	return image.Config{
		Dir: filepath.Join(d.config.DataDir, "images"), DiskBudget: int64(d.config.ImageDiskBudget),
		Mirrors: mirrors, InsecureRegistries: d.config.InsecureRegistries,
		ImageDirs: d.config.ImageDirs, Logger: d.log,
	}, nil
}
