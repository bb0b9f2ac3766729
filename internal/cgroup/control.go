package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// period is the span over which a CPU quota is counted, in microseconds: the
// kernel's default.
const period = 100_000

// minQuota is the least quota the kernel takes, in microseconds.
const minQuota = 1000

// SetCPU bounds the CPU time of the group to cores; 0 unbounds it.
func (g *Group) SetCPU(cores float64) error {
	if cores < 0 || math.IsNaN(cores) || math.IsInf(cores, 0) {
		return fmt.Errorf("a CPU limit of %v cores makes no sense", cores)
	}
	dir, v2 := g.dir("cpu")
	if dir == "" {
		return errors.New("this host has no cpu cgroup controller")
	}
	quota := max(int64(math.Round(min(cores, 1e6)*period)), minQuota)
	switch {
	case v2 && cores == 0:
		return write(dir, "cpu.max", fmt.Sprintf("max %d", period))
	case v2:
		return write(dir, "cpu.max", fmt.Sprintf("%d %d", quota, period))
	case cores == 0:
		return write(dir, "cpu.cfs_quota_us", "-1")
	}
	if err := write(dir, "cpu.cfs_period_us", strconv.Itoa(period)); err != nil {
		return err
	}
	return write(dir, "cpu.cfs_quota_us", strconv.FormatInt(quota, 10))
}

// DisableSwap keeps what the group may use of swap at nothing, so that its
// memory limit is the limit of both. It does nothing where the host does not
// count swap.
func (g *Group) DisableSwap() error {
	dir, v2 := g.dir("memory")
	if dir == "" {
		return nil
	}
	name, value := "memory.swap.max", "0"
	if !v2 {
		name = "memory.memsw.limit_in_bytes"
		b, err := os.ReadFile(filepath.Join(dir, "memory.limit_in_bytes"))
		if err != nil {
			return err
		}
		value = strings.TrimSpace(string(b))
	}
	if err := write(dir, name, value); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

func write(dir, name, value string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(value), 0)
}

// Procs returns the processes in the group and in groups below it, sorted.
func (g *Group) Procs() ([]int, error) {
	var pids []int
	for _, dir := range g.Dirs() {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if !d.IsDir() {
				return nil
			}
			b, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
			if err != nil {
				return err
			}
			for f := range strings.FieldsSeq(string(b)) {
				pid, err := strconv.Atoi(f)
				if err != nil {
					return err
				}
				if pid > 0 { // 0 stands for a process that this pid namespace can't name
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil && !gone(err) {
			return nil, err
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// gone reports whether err says that a group has been removed meanwhile.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}

// Remove kills every process in the group and removes the group and those
// below it. A group that is gone already is no error. Never call it on a group
// that is not wholly ours.
func (g *Group) Remove(ctx context.Context) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids, err := g.Procs()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		err = g.rmdir()
		if err == nil || !errors.Is(err, syscall.EBUSY) {
			return err
		}
		// A killed process leaves its group a moment after the signal.
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// rmdir removes the directories of the group, the deepest first.
func (g *Group) rmdir() error {
	for _, top := range g.Dirs() {
		var dirs []string
		err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return err
		})
		if err != nil && !gone(err) {
			return err
		}
		for _, d := range slices.Backward(dirs) {
			if err := syscall.Rmdir(d); err != nil && !errors.Is(err, syscall.ENOENT) {
				return &fs.PathError{Op: "rmdir", Path: d, Err: err}
			}
		}
	}
	return nil
}
