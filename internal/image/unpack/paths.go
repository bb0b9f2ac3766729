package unpack

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// parentDir is an open directory inside the tree.
type parentDir struct {
	name string // as entries spell it
	path string // as it is called once links are resolved
	fd   int    // -1: none
}

func (t *Tree) dropParent() {
	if t.parent.fd >= 0 {
		_ = unix.Close(t.parent.fd)
	}
	t.parent = parentDir{fd: -1}
}

// openDir opens a directory inside the tree, following links as if the tree
// were the root of the file system.
func (t *Tree) openDir(name string) (int, error) {
	for {
		fd, err := unix.Openat2(t.root, orDot(name), &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		return fd, err
	}
}

// dir returns the directory of that name, made with its parents where missing.
// The descriptor stays the tree's and is good until the next change of the
// tree's shape.
func (t *Tree) dir(name string) (parentDir, error) {
	if t.parent.fd >= 0 && t.parent.name == name {
		return t.parent, nil
	}
	fd, err := t.openDir(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		if err = t.makeDirs(name); err == nil {
			fd, err = t.openDir(name)
		}
	}
	if err != nil {
		return parentDir{}, pathError(name, err)
	}
	full, err := t.realPath(fd, name)
	if err != nil {
		_ = unix.Close(fd)
		return parentDir{}, err
	}
	t.dropParent()
	t.parent = parentDir{name: name, path: full, fd: fd}
	for p := full; p != ""; p = parentOf(p) {
		if !t.mark(p) {
			break
		}
	}
	return t.parent, nil
}

// realPath returns the path of an open directory with all links resolved, or
// the name where that can't be told.
func (t *Tree) realPath(fd int, name string) (string, error) {
	if t.prefix == "" {
		return name, nil
	}
	p, err := fdPath(fd)
	if err == nil && p == t.prefix {
		return "", nil
	}
	rel, ok := strings.CutPrefix(p, t.prefix+"/")
	if err != nil || !ok || len(rel) > maxPath {
		return "", invalid("a path is longer than %d bytes", maxPath)
	}
	return rel, nil
}

// makeDirs makes a directory and its parents. A parent that is there and no
// directory gives way, as if the layer had said that it is one.
func (t *Tree) makeDirs(name string) error {
	cur := -1 // the root
	at := func() int {
		if cur < 0 {
			return t.root
		}
		return cur
	}
	defer func() {
		if cur >= 0 {
			_ = unix.Close(cur)
		}
	}()
	done := ""
	for _, part := range strings.Split(name, "/") {
		next := join(done, part)
		fd, err := t.openDir(next)
		if err != nil {
			var st unix.Stat_t
			if unix.Fstatat(at(), part, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				if err := unix.Unlinkat(at(), part, 0); err != nil {
					return err
				}
			}
			if err := t.reserve(blockSize); err != nil {
				return err
			}
			if err := unix.Mkdirat(at(), part, 0o755); err != nil {
				return err
			}
			if fd, err = t.openDir(next); err != nil {
				return err
			}
			full, err := t.realPath(fd, next)
			if err != nil {
				_ = unix.Close(fd)
				return err
			}
			if err := t.setMeta(full, dirMeta{mode: 0o755, mtime: time.Unix(0, 0)}); err != nil {
				_ = unix.Close(fd)
				return err
			}
		}
		if cur >= 0 {
			_ = unix.Close(cur)
		}
		cur, done = fd, next
	}
	return nil
}

// remove takes away what is at base in a directory, whatever it is.
func (t *Tree) remove(p parentDir, base string) error {
	err := unix.Unlinkat(p.fd, base, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		return pathError(join(p.path, base), err)
	}
	// A directory. The cached descriptor may be inside it.
	fd, err := unix.Openat(p.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError(p.path, err)
	}
	return removeAll(fd, base)
}

// removeAll removes a tree below the directory dirFD, which it closes.
func removeAll(dirFD int, base string) error {
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(dirFD))
	_ = unix.Close(dirFD)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return root.RemoveAll(base)
}

// mark remembers that the layer at hand has added a path. It reports whether
// that is new.
func (t *Tree) mark(path string) bool {
	h := maphash.String(t.seed, path)
	if _, ok := t.added[h]; ok {
		return false
	}
	t.added[h] = struct{}{}
	return true
}

func (t *Tree) marked(path string) bool {
	_, ok := t.added[maphash.String(t.seed, path)]
	return ok
}

// children returns the names in a directory.
func children(dirFD int) ([]string, error) {
	fd, err := unix.Openat(dirFD, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer func() { _ = f.Close() }()
	return f.Readdirnames(-1)
}

func fdPath(fd int) (string, error) { return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) }

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

func parentOf(p string) string {
	if d := path.Dir(p); d != "." {
		return d
	}
	return ""
}

// pathError makes what only a hostile or broken layer can cause an error of
// the image's, and leaves the rest as it is.
func pathError(name string, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return invalid("the path %q goes in circles", name)
	case errors.Is(err, unix.ENOTDIR):
		return invalid("the path %q goes through something that is no directory", name)
	case errors.Is(err, unix.ENAMETOOLONG):
		return invalid("a path is too long")
	case errors.Is(err, unix.EXDEV):
		return invalid("the path %q leads out of the root", name)
	}
	return fmt.Errorf("unpack %q: %w", name, err)
}
