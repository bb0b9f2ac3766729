package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Layer is a compressed tar being read. Decompression and hashing run ahead in
// a goroutine of their own until Close.
type Layer struct {
	packed int64
	chunks chan chunk
	free   chan []byte
	stop   context.CancelFunc
	done   chan struct{}
	cur    chunk
	buf    []byte // of cur, to give back
	hash   hash.Hash
}

type chunk struct {
	data []byte
	err  error // after data
}

// OpenLayer starts to read a layer of packed bytes, compressed with gzip, zstd
// or bzip2, or not at all, which its first bytes tell. The options bound what
// it may decompress to. Close must be called.
func OpenLayer(ctx context.Context, r io.Reader, packed int64, opts Options) *Layer {
	opts = opts.withDefaults()
	ctx, stop := context.WithCancel(ctx)
	l := &Layer{
		packed: packed, stop: stop, hash: sha256.New(),
		chunks: make(chan chunk, 4), free: make(chan []byte, 6), done: make(chan struct{}),
	}
	go func() {
		defer close(l.done)
		defer close(l.chunks)
		l.pump(ctx, r, opts.expansion(packed), opts.MaxRatio)
	}()
	return l
}

func (l *Layer) pump(ctx context.Context, r io.Reader, limit, ratio int64) {
	send := func(c chunk) bool {
		select {
		case l.chunks <- c:
			return true
		case <-ctx.Done():
			return false
		}
	}
	plain, closeReader, err := decompress(r)
	if err != nil {
		send(chunk{err: err})
		return
	}
	defer closeReader()
	var total int64
	for {
		var buf []byte
		select {
		case buf = <-l.free:
		default:
			buf = make([]byte, 512<<10)
		}
		n, err := io.ReadFull(plain, buf)
		l.hash.Write(buf[:n])
		if total += int64(n); total > limit {
			err = flash.Errorf(flash.Invalid, "image: unpacks to more than %d times its compressed size", ratio)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errCut) {
			err = io.EOF
		}
		if !send(chunk{data: buf[:n], err: err}) || err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (l *Layer) Read(p []byte) (int, error) {
	for len(l.cur.data) == 0 {
		if l.cur.err != nil {
			return 0, l.cur.err
		}
		if l.buf != nil {
			select {
			case l.free <- l.buf[:cap(l.buf)]:
			default:
			}
		}
		c, ok := <-l.chunks
		if !ok {
			return 0, context.Canceled
		}
		l.cur, l.buf = c, c.data
	}
	n := copy(p, l.cur.data)
	l.cur.data = l.cur.data[n:]
	return n, nil
}

// Verify reads the layer to its end and compares the digest of all that it
// decompressed to with want, such as "sha256:ab12...".
func (l *Layer) Verify(want string) error {
	if _, err := io.Copy(io.Discard, l); err != nil {
		return readError(err)
	}
	<-l.done
	if got := "sha256:" + hex.EncodeToString(l.hash.Sum(nil)); got != want {
		return invalid("its contents have the digest %s, and the image's config says %s", got, want)
	}
	return nil
}

// Close ends the reading.
func (l *Layer) Close() {
	l.stop()
	for range l.chunks { // lets the goroutine go
	}
	<-l.done
}

// errCut is the end of a compressed stream before its end.
var errCut = fmt.Errorf("the compressed data is cut short: %w", io.ErrUnexpectedEOF)

// cutReader tells an early end of compressed data from the end of a read.
type cutReader struct{ r io.Reader }

func (c cutReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errCut
	}
	return n, err
}

func decompress(r io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	nothing := func() {}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, nil, invalid("its gzip data is malformed (%v)", err)
		}
		return cutReader{z}, func() { _ = z.Close() }, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, invalid("its zstd data is malformed (%v)", err)
		}
		return cutReader{z}, z.Close, nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return cutReader{bzip2.NewReader(br)}, nothing, nil
	}
	return br, nothing, nil
}
