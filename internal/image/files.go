package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	"golang.org/x/sys/unix"
)

// files opens what a reference of a file transport points to, and says what
// tells its present content from an earlier one. Everything goes through an
// os.Root of the allowed directory, so that no link leads out of it.
type files struct {
	root *os.Root
	rel  string // path below root
}

// openFiles finds the allowed directory that holds a reference's path.
func (s *Store) openFiles(r reference) (*files, error) {
	if len(s.cfg.ImageDirs) == 0 {
		return nil, flash.Errorf(flash.Denied, "image: %s references are switched off", strings.TrimSuffix(r.transport, ":")).
			WithRemediation("set FSB_IMAGE_DIRS to the directories that images may be read from")
	}
	for _, dir := range s.cfg.ImageDirs {
		rel, err := filepath.Rel(filepath.Clean(dir), r.path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, flash.Errorf(flash.Denied, "image: the directory %s of FSB_IMAGE_DIRS can't be opened", dir).WithCause(err)
		}
		return &files{root: root, rel: rel}, nil
	}
	return nil, flash.Errorf(flash.Denied, "image: %s is in none of the directories that images may be read from", r.path).
		WithRemediation("move it below one of FSB_IMAGE_DIRS, or add its directory there")
}

func (f *files) close() { _ = f.root.Close() }

// fingerprint changes when the image behind the reference may have changed.
func (f *files) fingerprint(r reference) (string, error) {
	name := f.rel
	if r.transport == ociDir {
		name = filepath.Join(name, "index.json")
	}
	fi, err := f.root.Stat(name)
	if err != nil {
		return "", fileError(r, err)
	}
	return fmt.Sprintf("%d %d", fi.Size(), fi.ModTime().UnixNano()), nil
}

// open opens a regular file below the allowed directory.
func (f *files) open(names ...string) (*os.File, error) {
	// Without blocking: it may be a FIFO.
	file, err := f.root.OpenFile(filepath.Join(append([]string{f.rel}, names...)...), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: file.Name(), Err: errors.New("is no regular file")}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// fileError makes the failure to read an image's file fit for users.
func fileError(r reference, err error) error {
	var fe *flash.Error
	switch {
	case errors.As(err, &fe), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return notFound("image: %s was not found, or is no %s image", r.path, strings.TrimSuffix(r.transport, ":")).WithCause(err)
	case errors.Is(err, fs.ErrPermission):
		return flash.Errorf(flash.Denied, "image: the daemon may not read %s", r.path).WithCause(err)
	case strings.Contains(err.Error(), "escapes from parent"): // os.Root has no error value for it
		return flash.Errorf(flash.Denied, "image: a link in %s leads out of the directories that images may be read from", r.path).WithCause(err)
	}
	return broken("%s can't be read as %s image", r.path, strings.TrimSuffix(r.transport, ":")).WithCause(err)
}

// limited reads all of r, but no more than n bytes.
func limited(r io.Reader, n int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, n+1))
	if err == nil && int64(len(data)) > n {
		err = fmt.Errorf("is larger than %d bytes", n)
	}
	return data, err
}
