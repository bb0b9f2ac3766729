package registry

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs holds blobs in memory and finds those of image layouts on the disk.
type blobs struct {
	mu      sync.RWMutex
	memory  map[v1.Hash][]byte
	layouts []string
}

func newBlobs() *blobs { return &blobs{memory: map[v1.Hash][]byte{}} }

func (b *blobs) addLayout(dir string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.layouts = append(b.layouts, dir)
}

// Stat implements registry.BlobStatHandler.
func (b *blobs) Stat(_ context.Context, _ string, h v1.Hash) (int64, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if data, ok := b.memory[h]; ok {
		return int64(len(data)), nil
	}
	for _, dir := range b.layouts {
		if fi, err := os.Stat(filepath.Join(dir, "blobs", h.Algorithm, h.Hex)); err == nil {
			return fi.Size(), nil
		}
	}
	return 0, ggcr.ErrNotFound
}

// Get implements registry.BlobHandler.
func (b *blobs) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if data, ok := b.memory[h]; ok {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	for _, dir := range b.layouts {
		if f, err := os.Open(filepath.Join(dir, "blobs", h.Algorithm, h.Hex)); err == nil {
			return f, nil
		}
	}
	return nil, ggcr.ErrNotFound
}

// Put implements registry.BlobPutHandler.
func (b *blobs) Put(_ context.Context, _ string, h v1.Hash, rc io.ReadCloser) error {
	defer func() { _ = rc.Close() }()
	data, err := io.ReadAll(rc)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.memory[h] = data
	return nil
}
