package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// lockName is the file that tells a data folder from any other.
const lockName = "fsbd.lock"

// lockDataDir makes the data folder and locks it for this process. The lock
// goes with the process, however that ends.
func lockDataDir(dir string) (*os.File, error) {
	if err := takeDataDir(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, dataDirError(dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid := make([]byte, 16)
		n, _ := f.Read(pid)
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("FSB_DATA_DIR: %s is in use by another fsbd (pid %s); stop it or choose another folder", dir, pid[:n])
		}
		return nil, dataDirError(dir, err)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, dataDirError(dir, err)
	}
	if _, err := fmt.Fprintf(f, "%d", os.Getpid()); err != nil {
		f.Close()
		return nil, dataDirError(dir, err)
	}
	return f, nil
}

// takeDataDir makes the data folder, or takes one that is empty or has been a
// data folder before. Others are left alone: the folder gets closed to all
// other users, which /tmp or /srv would not survive.
func takeDataDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return dataDirError(dir, err)
		}
		return nil
	}
	if err != nil {
		return dataDirError(dir, err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return dataDirError(dir, err)
	}
	// A file system of its own begins with a lost+found.
	foreign := slices.ContainsFunc(names, func(name string) bool { return name != "lost+found" })
	if foreign && !slices.Contains(names, lockName) {
		return fmt.Errorf("FSB_DATA_DIR: %s holds files and no %s, so it is not fsbd's; choose an empty folder or one that does not exist yet", dir, lockName)
	}
	// It holds what sandboxes wrote, setuid files among it.
	if err := d.Chmod(0o700); err != nil {
		return dataDirError(dir, err)
	}
	return nil
}

func dataDirError(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("FSB_DATA_DIR: the disk of %s is full", dir)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("FSB_DATA_DIR: %s is not writable for this user; choose another folder or run fsbd as root", dir)
	}
	return fmt.Errorf("FSB_DATA_DIR: %w", err)
}
