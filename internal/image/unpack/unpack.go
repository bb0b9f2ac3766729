// Package unpack turns the layers of a container image into a directory. Layers
// are hostile input: whatever they hold, nothing outside the directory is read,
// changed or created.
//
// Every path is resolved by the kernel with openat2 and RESOLVE_IN_ROOT, so
// symbolic links are followed as they would be after chroot, and the last
// element of a path is never followed. What an entry says is honoured where it
// means something in a read-only tree that only sandboxes look at:
//
//   - files, directories, symbolic and hard links, FIFOs, and the whiteouts of
//     the OCI image spec;
//   - modes with the setuid, setgid and sticky bits (keep the tree below a
//     directory that host users can't enter), owners (as root) and times;
//   - the extended attributes user.* and security.capability.
//
// Device nodes are left out: sandboxes get a /dev of their own. An entry whose
// name leads out of the root makes the image invalid.
//
// The package knows tar and the file system. It does not know registries,
// digests of manifests, or caches.
//
//	t, err := unpack.New(dir, unpack.Options{})
//	for _, l := range layers { err = t.Apply(ctx, l) } // l from OpenLayer
//	stats, err := t.Close()
package unpack

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"golang.org/x/sys/unix"
)

// Limits that hold for an image where Options doesn't say otherwise.
const (
	DefaultMaxEntries = 2 << 20
	DefaultMaxBytes   = 64 << 30
	DefaultMaxRatio   = 250
	DefaultRatioFloor = 1 << 30
	// maxPath is the longest path in a tree, as Linux takes it in one call.
	maxPath = 4096 - 256
	// maxDirBytes bounds the memory for modes and times of directories.
	maxDirBytes = 256 << 20
)

// Options bounds what a tree may become.
type Options struct {
	MaxEntries int64 // entries of all layers together; 0: DefaultMaxEntries
	MaxBytes   int64 // bytes of file contents, holes included; 0: DefaultMaxBytes
	// MaxRatio bounds what layers decompress to, to that many times their
	// compressed size, but never below RatioFloor bytes; 0: DefaultMaxRatio
	// and DefaultRatioFloor.
	MaxRatio, RatioFloor int64
	// Reserve is asked before that many more bytes of disk are used. An error
	// ends the unpacking and is returned as it is. nil: not asked.
	Reserve func(bytes int64) error
}

func (o Options) withDefaults() Options {
	o.MaxEntries = cmp.Or(o.MaxEntries, DefaultMaxEntries)
	o.MaxBytes = cmp.Or(o.MaxBytes, DefaultMaxBytes)
	o.MaxRatio = cmp.Or(o.MaxRatio, DefaultMaxRatio)
	o.RatioFloor = cmp.Or(o.RatioFloor, DefaultRatioFloor)
	return o
}

// expansion returns what packed bytes may decompress to.
func (o Options) expansion(packed int64) int64 {
	const most = 1 << 62
	if packed > most/o.MaxRatio {
		return most
	}
	return max(o.RatioFloor, packed*o.MaxRatio)
}

// Stats says what a tree has become.
type Stats struct {
	Entries int64 // entries read, whiteouts and skipped ones included
	Bytes   int64 // of disk taken, in whole blocks, as far as it was counted
	Devices int64 // device nodes left out
}

// Tree is a directory that layers are applied to, lowest first. It is used by
// one goroutine.
type Tree struct {
	opts     Options
	root     int    // descriptor of the directory
	prefix   string // what the kernel calls the directory; "" when it can't be told
	seed     maphash.Seed
	dirs     map[string]dirMeta // modes and times to set at the end
	dirBytes int64              // memory that dirs takes, about
	stats    Stats
	content  int64 // bytes of file contents so far
	packed   int64 // compressed bytes so far
	owed     int64 // bytes reserved and not used yet
	buf      []byte

	added  map[uint64]struct{} // hashes of paths that the layer at hand has added
	parent parentDir           // the directory that was used last
}

// dirMeta is set on a directory once nothing changes in it any more.
type dirMeta struct {
	mode  uint32
	mtime time.Time
}

// New returns a tree that fills dir, an existing empty directory that nobody
// else changes meanwhile.
func New(dir string, opts Options) (*Tree, error) {
	opts = opts.withDefaults()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	t := &Tree{
		opts: opts, root: fd, seed: maphash.MakeSeed(), dirs: map[string]dirMeta{},
		buf: make([]byte, 256<<10), added: map[uint64]struct{}{},
	}
	t.parent.fd = -1
	t.prefix, _ = fdPath(fd)
	if p, err := t.openDir("."); err != nil { // says early that openat2 is missing
		_ = unix.Close(fd)
		if errors.Is(err, unix.ENOSYS) {
			return nil, flash.Errorf(flash.Unavailable, "image: unpacking needs openat2, which Linux has since 5.6").WithCause(err)
		}
		return nil, err
	} else if err := unix.Close(p); err != nil {
		return nil, err
	}
	t.dirs[""] = dirMeta{mode: 0o755, mtime: time.Unix(0, 0)}
	return t, nil
}

// Close sets the modes and times of directories and releases the tree. It must
// be called once, also after a failed Apply.
func (t *Tree) Close() (Stats, error) {
	t.dropParent()
	defer func() { _ = unix.Close(t.root) }()
	// Children first: the parent's mode may forbid to enter it.
	for _, path := range slices.Backward(slices.Sorted(maps.Keys(t.dirs))) {
		if err := t.finishDir(path, t.dirs[path]); err != nil {
			return t.stats, err
		}
	}
	return t.stats, nil
}

// setMeta remembers what a directory is to be like at the end.
func (t *Tree) setMeta(path string, meta dirMeta) error {
	if _, ok := t.dirs[path]; !ok {
		t.dirBytes += int64(len(path)) + 64
		if t.dirBytes > maxDirBytes {
			return invalid("it has too many directories with long names")
		}
	}
	t.dirs[path] = meta
	return nil
}

func (t *Tree) finishDir(path string, meta dirMeta) error {
	fd, err := unix.Openat2(t.root, orDot(path), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		// A later layer took it away, or put something else there.
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil
		}
		return fmt.Errorf("open directory %q: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Fchmod(fd, meta.mode); err != nil {
		return fmt.Errorf("set mode of directory %q: %w", path, err)
	}
	ts := timespec(meta.mtime)
	if err := unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH); err != nil {
		// Older kernels take AT_EMPTY_PATH for this call only since 5.8; a time is no loss.
		return nil //nolint:nilerr // see above
	}
	return nil
}

// reserve accounts for n bytes of disk. The owner of the budget is asked in
// large steps, since it may have to remove something first.
func (t *Tree) reserve(n int64) error {
	t.stats.Bytes += n
	if t.opts.Reserve == nil {
		return nil
	}
	if n > t.owed {
		step := max(n-t.owed, 1<<20)
		if err := t.opts.Reserve(step); err != nil {
			if step = n - t.owed; t.opts.Reserve(step) != nil {
				return err
			}
		}
		t.owed += step
	}
	t.owed -= n
	return nil
}

// cleanName returns a name of an entry as a path relative to the root, "" for
// the root itself.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", invalid("a name holds a NUL byte")
	}
	parts := strings.Split(name, "/")
	out := parts[:0]
	for _, p := range parts {
		switch p {
		case "", ".":
		case "..":
			if len(out) == 0 {
				return "", invalid("the name %q leads out of the root", name)
			}
			out = out[:len(out)-1]
		default:
			if len(p) > unix.NAME_MAX {
				return "", invalid("a name is longer than %d bytes", unix.NAME_MAX)
			}
			out = append(out, p)
		}
	}
	path := strings.Join(out, "/")
	if len(path) > maxPath {
		return "", invalid("a path is longer than %d bytes", maxPath)
	}
	return path, nil
}

func invalid(format string, args ...any) error {
	return flash.Errorf(flash.Invalid, "image: a layer can't be unpacked: %s", fmt.Sprintf(format, args...))
}

func timespec(t time.Time) unix.Timespec {
	sec := t.Unix()
	if sec < 0 || sec > 1<<34 {
		return unix.Timespec{}
	}
	return unix.NsecToTimespec(t.UnixNano())
}

func orDot(path string) string {
	if path == "" {
		return "."
	}
	return path
}
