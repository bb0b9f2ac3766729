package gvisor

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// writeUpper writes the archive with the files that every machine has of its
// own, laid over the image as if they had been written in the machine: the
// sandbox may change them, and a snapshot holds them.
func writeUpper(dir, rootfs, hostname string) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dirs := []string{"./", "./etc/"}
	var headers []*tar.Header
	for _, name := range dirs {
		h, err := dirHeader(rootfs, name)
		if errors.Is(err, errNotDir) {
			break // nothing can be laid over a link; the image keeps what it has
		}
		if err != nil {
			return err
		}
		headers = append(headers, h)
		if err := w.WriteHeader(h); err != nil {
			return err
		}
	}
	if len(headers) == len(dirs) {
		mtime := headers[1].ModTime
		for _, f := range []struct{ name, content string }{
			{"./etc/hostname", hostname + "\n"},
			{"./etc/hosts", fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t%s\n", hostname)},
			{"./etc/resolv.conf", "# This sandbox has no network but its loopback interface.\n"},
		} {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.content)), ModTime: mtime}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			if _, err := w.Write([]byte(f.content)); err != nil {
				return err
			}
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return writeFile(dir, upperFile, b.Bytes())
}

var errNotDir = errors.New("not a directory")

// dirHeader describes a directory of the image, so that it looks the same with
// something laid over it. One that is missing gets the usual mode.
func dirHeader(rootfs, name string) (*tar.Header, error) {
	h := &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
	fi, err := os.Lstat(filepath.Join(rootfs, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return h, nil
	case err != nil:
		return nil, err
	case !fi.IsDir():
		return nil, errNotDir
	}
	h.ModTime = fi.ModTime()
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		h.Mode, h.Uid, h.Gid = int64(st.Mode&0o7777), int(st.Uid), int(st.Gid)
	}
	return h, nil
}

// writeTmp makes the directory that lies under /tmp, if the image has none or
// nothing in it. gVisor would otherwise keep /tmp in memory, where a download
// counts against the sandbox's limit.
func writeTmp(dir, rootfs string) (made bool, err error) {
	h, err := dirHeader(rootfs, tmpDir)
	switch {
	case errors.Is(err, errNotDir):
		return false, nil
	case err != nil:
		return false, err
	case h.ModTime.IsZero(): // there is none
		h.Mode = 0o1777
	default:
		entries, err := os.ReadDir(filepath.Join(rootfs, tmpDir))
		if err != nil || len(entries) > 0 {
			return false, err
		}
	}
	p := filepath.Join(dir, tmpDir)
	if err := os.Mkdir(p, 0o700); err != nil {
		return false, err
	}
	if err := os.Chown(p, h.Uid, h.Gid); err != nil {
		return false, err
	}
	// Not os.Chmod, which spells the sticky bit otherwise.
	return true, syscall.Chmod(p, uint32(h.Mode))
}
