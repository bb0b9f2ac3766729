package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// attempts is how often a blob is asked for before its pull fails.
const attempts = 3

// errStalled ends a download that brings nothing any more.
var errStalled = errors.New("the download brings nothing any more")

// blob downloads a blob once for all pulls that need it. It returns how many
// bytes it has added to the disk on behalf of this caller.
func (s *Store) blob(ctx context.Context, p *pull, src source, d descriptor) (int64, error) {
	var added int64
	key := "blob " + d.digest.String()
	if !src.shared() {
		key += " from " + p.ref.key
	}
	err := s.flights.do(ctx, key, func(ctx context.Context) error {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-s.slots }()
		n, err := s.download(ctx, p, src, d)
		added = n
		return err
	})
	if ctx.Err() != nil {
		return 0, err // the function may still run, and owns added
	}
	return added, err
}

// download fetches a blob, again where the source breaks off.
func (s *Store) download(ctx context.Context, p *pull, src source, d descriptor) (int64, error) {
	s.mu.Lock()
	size, ok := s.blobs[d.digest.String()]
	s.mu.Unlock()
	if ok && size == d.size {
		p.done.Add(d.size)
		return 0, nil // another pull was faster
	}
	var err error
	for try := range attempts {
		if try > 0 {
			select {
			case <-time.After(time.Duration(try) * 300 * time.Millisecond):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		var n int64
		n, err = s.downloadOnce(ctx, p, src, d)
		if err == nil {
			return n, nil
		}
		p.done.Add(-n)
		var fe *flash.Error
		if ctx.Err() != nil || errors.As(err, &fe) {
			return 0, err
		}
		s.log.Debug("download of a layer broke off", "digest", d.digest.String(), "try", try+1, "err", err)
	}
	if errors.Is(err, errStalled) {
		return 0, flash.Errorf(flash.Unavailable, "image: %s can't be pulled now (nothing has arrived for %s)", shown(p.ref.key), s.cfg.StallTimeout).
			WithCause(err)
	}
	return 0, flash.Errorf(flash.Unavailable, "image: %s can't be pulled now (the download of %s broke off %d times)", shown(p.ref.key), d.digest, attempts).
		WithCause(err)
}

// downloadOnce fetches a blob into place. On error it returns how many bytes
// it has counted as arrived.
func (s *Store) downloadOnce(ctx context.Context, p *pull, src source, d descriptor) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(s.cfg.StallTimeout, func() { cancel(errStalled) })
	defer watchdog.Stop()
	why := func(err error) error {
		if errors.Is(context.Cause(ctx), errStalled) {
			return errStalled
		}
		return err
	}

	rc, err := src.blob(ctx, d)
	if err != nil {
		return 0, why(err)
	}
	defer func() { _ = rc.Close() }()
	f, err := s.tempFile()
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	defer func() { _ = f.Close() }()

	hash := sha256.New()
	buf := make([]byte, 256<<10)
	var n int64
	for {
		m, err := rc.Read(buf)
		if m > 0 {
			watchdog.Reset(s.cfg.StallTimeout)
			if n+int64(m) > d.size {
				return n, broken("%s is larger than its manifest says", d.digest)
			}
			n += int64(m)
			p.done.Add(int64(m))
			hash.Write(buf[:m])
			if _, err := f.Write(buf[:m]); err != nil {
				return n, diskError(err)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, why(err)
		}
		if ctx.Err() != nil {
			return n, why(ctx.Err())
		}
	}
	if n != d.size {
		return n, fmt.Errorf("blob %s ended after %d of %d bytes", d.digest, n, d.size)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != d.digest.Hex {
		return n, broken("the bytes that came for %s have another digest", d.digest)
	}
	return n, s.commit(f, d)
}

// commit moves a finished file to its place among the blobs.
func (s *Store) commit(f *os.File, d descriptor) error {
	if err := f.Close(); err != nil {
		return diskError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(f.Name(), s.blobPath(d.digest)); err != nil {
		return diskError(err)
	}
	s.used += d.size - s.blobs[d.digest.String()]
	s.blobs[d.digest.String()] = d.size
	return nil
}

// writeBlob stores a small blob that is at hand.
func (s *Store) writeBlob(d descriptor, data []byte) error {
	s.mu.Lock()
	_, ok := s.blobs[d.digest.String()]
	s.mu.Unlock()
	if ok {
		return nil
	}
	f, err := s.tempFile()
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err := io.Copy(f, bytes.NewReader(data)); err != nil {
		_ = f.Close()
		return diskError(err)
	}
	return s.commit(f, d)
}
