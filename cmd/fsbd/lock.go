package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lockDataDir makes the data folder and locks it for this process. The lock
// goes with the process, however that ends.
func lockDataDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, dataDirError(dir, err)
	}
	// The folder holds what sandboxes wrote, setuid files among it.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, dataDirError(dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "fsbd.lock"), os.O_RDWR|os.O_CREATE, 0o600)
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

func dataDirError(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("FSB_DATA_DIR: the disk of %s is full", dir)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("FSB_DATA_DIR: %s is not writable for this user; choose another folder or run fsbd as root", dir)
	}
	return fmt.Errorf("FSB_DATA_DIR: %w", err)
}
