package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/flash-sandbox/flash-sandbox/internal/image/unpack"
)

// addBlob hands a blob to an archive. Layers compressed with zstd are
// decompressed, since older engines don't know it.
func (l *Lease) addBlob(ctx context.Context, d descriptor, name string, add func(string, int64, io.Reader) error) error {
	f, err := os.Open(l.store.blobPath(d.digest))
	if err != nil {
		return fmt.Errorf("open blob: %w", err)
	}
	defer func() { _ = f.Close() }()
	var head [4]byte
	if n, _ := f.ReadAt(head[:], 0); n < 4 || !bytes.Equal(head[:], []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return add(name, d.size, f)
	}
	opts := unpack.Options{MaxBytes: l.store.cfg.MaxBytes}
	plain := unpack.OpenLayer(ctx, f, d.size, opts)
	size, err := io.Copy(io.Discard, plain)
	plain.Close()
	if err != nil {
		return fmt.Errorf("decompress layer: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read layer again: %w", err)
	}
	plain = unpack.OpenLayer(ctx, f, d.size, opts)
	defer plain.Close()
	return add(name, size, plain)
}

// intact reports whether a blob's bytes are still what its digest says.
func (s *Store) intact(d descriptor) bool {
	f, err := os.Open(s.blobPath(d.digest))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	return err == nil && n == d.size && hex.EncodeToString(hash.Sum(nil)) == d.digest.Hex
}

// ctxReader ends a copy when a context has ended.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
