package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	"golang.org/x/sys/unix"
)

func metaOf(hdr *tar.Header) dirMeta {
	return dirMeta{mode: uint32(hdr.Mode & 0o7777), mtime: hdr.ModTime}
}

// makeDir makes a directory, or takes the one that is there for its own.
func (t *Tree) makeDir(parent parentDir, base, p string, hdr *tar.Header) error {
	err := unix.Mkdirat(parent.fd, base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return pathError(p, err)
		}
		err = nil
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := t.remove(parent, base); err != nil {
				return err
			}
			err = unix.Mkdirat(parent.fd, base, 0o755)
			defer t.dropParent()
		}
	}
	if err != nil {
		return pathError(p, err)
	}
	if err := t.setMeta(p, metaOf(hdr)); err != nil {
		return err
	}
	if err := t.chown(parent.fd, base, hdr); err != nil {
		return err
	}
	if len(hdr.PAXRecords) == 0 {
		return nil
	}
	fd, err := unix.Openat(parent.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError(p, err)
	}
	defer func() { _ = unix.Close(fd) }()
	return setXattrs(fd, p, hdr)
}

// make makes anything but a directory, in place of whatever is there.
func (t *Tree) make(parent parentDir, base, p string, hdr *tar.Header, r io.Reader) error {
	create := func() error { return t.create(parent, base, p, hdr, r) }
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if hdr.Typeflag == tar.TypeLink {
		if same, err := t.linksToItself(parent, base, hdr); same || err != nil {
			return err
		}
	}
	if err := t.remove(parent, base); err != nil {
		return err
	}
	err = create()
	t.dropParent()
	return err
}

// create makes anything but a directory where nothing is yet. Its error is
// EEXIST, before anything of r is read, where something is.
func (t *Tree) create(parent parentDir, base, p string, hdr *tar.Header, r io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) >= unix.PathMax || strings.IndexByte(hdr.Linkname, 0) >= 0 {
			return invalid("the symbolic link %q has no usable target", p)
		}
		if err := unix.Symlinkat(hdr.Linkname, parent.fd, base); err != nil {
			return pathError(p, err)
		}
	case tar.TypeLink:
		return t.link(parent, base, p, hdr)
	case tar.TypeFifo:
		if err := unix.Mknodat(parent.fd, base, unix.S_IFIFO|0o600, 0); err != nil {
			return pathError(p, err)
		}
		if err := t.chown(parent.fd, base, hdr); err != nil {
			return err
		}
		if err := fchmodat(parent.fd, base, hdr); err != nil {
			return pathError(p, err)
		}
		return t.touch(parent.fd, base, hdr)
	case tar.TypeChar, tar.TypeBlock:
		var st unix.Stat_t
		if unix.Fstatat(parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return unix.EEXIST // it hides what is there all the same
		}
		t.stats.Devices++
		return nil
	default:
		return t.createFile(parent, base, p, hdr, r)
	}
	if err := t.chown(parent.fd, base, hdr); err != nil {
		return err
	}
	return t.touch(parent.fd, base, hdr)
}

// fchmodat sets the mode of a FIFO, which must not be opened for it. It was
// made just now and is no link.
func fchmodat(dirFD int, base string, hdr *tar.Header) error {
	return unix.Fchmodat(dirFD, base, uint32(hdr.Mode&0o7777), 0)
}

// link makes a hard link to something in the tree that is no directory.
func (t *Tree) link(parent parentDir, base, p string, hdr *tar.Header) error {
	target, err := cleanName(hdr.Linkname)
	if err != nil {
		return err
	}
	if target == "" {
		return invalid("%q is a hard link to the root", p)
	}
	fd, err := t.openDir(parentOf(target))
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return invalid("%q is a hard link to %q, which is not there", p, target)
		}
		return pathError(target, err)
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.Linkat(fd, path.Base(target), parent.fd, base, 0)
	switch {
	case errors.Is(err, unix.EEXIST):
		return unix.EEXIST
	case errors.Is(err, unix.ENOENT):
		return invalid("%q is a hard link to %q, which is not there", p, target)
	case errors.Is(err, unix.EPERM):
		return invalid("%q is a hard link to %q, which is a directory", p, target)
	case errors.Is(err, unix.EMLINK):
		return invalid("%q has more hard links than the file system takes", target)
	case err != nil:
		return pathError(p, err)
	}
	return nil
}

// linksToItself reports whether a hard link is to be put where its own target
// is, which must not be removed first. Its error says that the target is not
// there at all.
func (t *Tree) linksToItself(parent parentDir, base string, hdr *tar.Header) (bool, error) {
	target, err := cleanName(hdr.Linkname)
	if err != nil {
		return false, err
	}
	fd, err := t.openDir(parentOf(target))
	if err != nil {
		return false, pathError(target, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var a, b unix.Stat_t
	if err := unix.Fstatat(fd, path.Base(target), &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, invalid("%q is a hard link to %q, which is not there", base, target)
	}
	if err := unix.Fstatat(parent.fd, base, &b, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, pathError(base, err)
	}
	return a.Ino == b.Ino && a.Dev == b.Dev, nil
}

func (t *Tree) createFile(parent parentDir, base, p string, hdr *tar.Header, r io.Reader) error {
	if hdr.Size < 0 {
		return invalid("%q has a negative size", p)
	}
	limit := t.opts.expansion(t.packed)
	switch {
	case hdr.Size > t.opts.MaxBytes-t.content:
		return flash.Errorf(flash.Invalid, "image: unpacks to more than %d bytes", t.opts.MaxBytes)
	case hdr.Size > limit-t.content:
		return flash.Errorf(flash.Invalid, "image: unpacks to more than %d times its compressed size", t.opts.MaxRatio)
	}
	fd, err := unix.Openat(parent.fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		if errors.Is(err, unix.EEXIST) {
			return unix.EEXIST
		}
		return pathError(p, err)
	}
	err = t.fill(fd, p, hdr, r)
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		err = pathError(p, cerr)
	}
	return err
}

func (t *Tree) fill(fd int, p string, hdr *tar.Header, r io.Reader) error {
	if err := t.copy(fd, p, hdr.Size, r); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
			return pathError(p, err)
		}
	}
	if err := setXattrs(fd, p, hdr); err != nil {
		return err
	}
	// After the owner: changing that clears the setuid bits.
	if err := unix.Fchmod(fd, uint32(hdr.Mode&0o7777)); err != nil {
		return pathError(p, err)
	}
	ts := timespec(hdr.ModTime)
	tv := []unix.Timeval{unix.NsecToTimeval(ts.Nano()), unix.NsecToTimeval(ts.Nano())}
	if err := unix.Futimes(fd, tv); err != nil {
		return pathError(p, err)
	}
	return nil
}

var zeros [blockSize]byte

// copy writes a file's contents. Blocks of zeros become holes.
func (t *Tree) copy(fd int, p string, size int64, r io.Reader) error {
	var off int64
	hole := false // whether the file ends in one
	for off < size {
		n, err := io.ReadFull(r, t.buf[:min(int64(len(t.buf)), size-off)])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return readError(err)
		}
		t.content += int64(n)
		for chunk := t.buf[:n]; len(chunk) > 0; {
			run, zero := sameKind(chunk)
			if !zero {
				if err := t.reserve((int64(run) + blockSize - 1) / blockSize * blockSize); err != nil {
					return err
				}
				if err := writeAt(fd, chunk[:run], off); err != nil {
					return pathError(p, err)
				}
			}
			off += int64(run)
			hole = zero
			chunk = chunk[run:]
		}
	}
	if hole {
		if err := unix.Ftruncate(fd, size); err != nil {
			return pathError(p, err)
		}
	}
	return nil
}

// sameKind returns how much of p, in whole blocks where it can, is all zeros or
// is not, and which of the two.
func sameKind(p []byte) (n int, zero bool) {
	for n < len(p) {
		block := p[n:min(n+blockSize, len(p))]
		z := bytes.Equal(block, zeros[:len(block)])
		if n == 0 {
			zero = z
		} else if z != zero {
			break
		}
		n += len(block)
	}
	return n, zero
}

func writeAt(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// chown gives an entry to its owner. Only root can.
func (t *Tree) chown(dirFD int, base string, hdr *tar.Header) error {
	if os.Geteuid() != 0 {
		return nil
	}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if base == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Fchownat(dirFD, base, hdr.Uid, hdr.Gid, flags); err != nil {
		return pathError(base, err)
	}
	return nil
}

func (t *Tree) touch(dirFD int, base string, hdr *tar.Header) error {
	ts := timespec(hdr.ModTime)
	if err := unix.UtimesNanoAt(dirFD, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError(base, err)
	}
	return nil
}

// setXattrs sets the extended attributes that mean something to sandboxes. One
// that the file system can't hold is left out.
func setXattrs(fd int, p string, hdr *tar.Header) error {
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		switch {
		case err == nil, errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM):
		case errors.Is(err, unix.ENOSPC) && len(value) > 1024: // more than the file system has room for at one file
		case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EINVAL):
			return invalid("%q has the extended attribute %s, which is too large or malformed", p, strconv.Quote(name))
		default:
			return pathError(p, err)
		}
	}
	return nil
}
