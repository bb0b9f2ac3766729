package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	"golang.org/x/sys/unix"
)

const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // other names that begin so are another storage driver's own

	blockSize = 4096 // what the smallest entry takes on the disk
)

// Apply adds a layer. After an error the tree is good for Close only. Errors
// that the layer itself is to blame for are flash.Invalid.
func (t *Tree) Apply(ctx context.Context, l *Layer) error {
	t.packed += l.packed
	clear(t.added)
	t.dropParent()
	r := tar.NewReader(l)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return readError(err)
		}
		t.stats.Entries++
		if t.stats.Entries > t.opts.MaxEntries {
			return flash.Errorf(flash.Invalid, "image: has more than %d files", t.opts.MaxEntries)
		}
		if err := t.entry(hdr, r); err != nil {
			return err
		}
	}
}

// readError tells data that is broken from a source that failed.
func readError(err error) error {
	var fe *flash.Error
	var se *os.SyscallError
	var pe *os.PathError
	switch {
	case errors.As(err, &fe), errors.As(err, &se), errors.As(err, &pe),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return invalid("it is no complete tar archive (%v)", err)
}

func (t *Tree) entry(hdr *tar.Header, r io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock,
		tar.TypeCont, tar.TypeGNUSparse:
	default:
		return invalid("%q is of the unknown type %q", hdr.Name, hdr.Typeflag)
	}
	name, err := cleanName(hdr.Name)
	if err != nil {
		return err
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= 1<<32-1 || int64(hdr.Gid) >= 1<<32-1 {
		return invalid("%q belongs to a user or group out of range", hdr.Name)
	}
	if name == "" {
		if hdr.Typeflag != tar.TypeDir {
			return invalid("the root is no directory")
		}
		if err := t.setMeta("", metaOf(hdr)); err != nil {
			return err
		}
		return t.chown(t.root, "", hdr)
	}
	base := path.Base(name)
	parent, err := t.dir(parentOf(name))
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteout) {
		return t.whiteout(parent, base)
	}
	p := join(parent.path, base)
	t.mark(p)
	if err := t.reserve(blockSize); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeDir {
		return t.makeDir(parent, base, p, hdr)
	}
	return t.make(parent, base, p, hdr, r)
}

// whiteout hides what lower layers have at a path, or in a directory.
func (t *Tree) whiteout(parent parentDir, base string) error {
	if base == whiteoutOpaque {
		defer t.dropParent()
		return t.clear(parent.fd, parent.path)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	name := strings.TrimPrefix(base, whiteout)
	if name == "" || name == "." || name == ".." {
		return invalid("%q is no whiteout of anything", join(parent.path, base))
	}
	p := join(parent.path, name)
	defer t.dropParent()
	if !t.marked(p) {
		return t.remove(parent, name)
	}
	// The same layer has put something there: only what was in it before goes.
	fd, err := openSub(parent.fd, name)
	if err != nil {
		return nil //nolint:nilerr // no directory: nothing of a lower layer is left there
	}
	defer func() { _ = unix.Close(fd) }()
	return t.clear(fd, p)
}

// clear removes what the layer at hand has not added from a directory.
func (t *Tree) clear(dirFD int, dir string) error {
	names, err := children(dirFD)
	if err != nil {
		return pathError(dir, err)
	}
	for _, name := range names {
		p := join(dir, name)
		if !t.marked(p) {
			if err := t.remove(parentDir{path: dir, fd: dirFD}, name); err != nil {
				return err
			}
			continue
		}
		fd, err := openSub(dirFD, name)
		if err != nil {
			continue // no directory, and added by this layer
		}
		err = t.clear(fd, p)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// openSub opens a directory that is directly inside another one, and no link.
func openSub(dirFD int, name string) (int, error) {
	return unix.Openat(dirFD, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}
