package manager

import (
	"errors"
	"io/fs"
	"syscall"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// diskError makes an error of the data folder one that users can act on.
func diskError(what string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return flash.Errorf(flash.Exhausted, "%s: the disk of the data folder is full", what).WithCause(err).
			WithRemediation("free some space, for example by deleting snapshots")
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return flash.Errorf(flash.Internal, "%s: the data folder is not writable", what).WithCause(err)
	}
	return err
}

// diskSize counts allocated blocks, so that a sparse file counts for what it takes.
func diskSize(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}
