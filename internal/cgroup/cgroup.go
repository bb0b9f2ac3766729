// Package cgroup reads the counters of the control groups that processes are
// in, and adjusts or removes groups that are ours. It knows cgroup v1, v2 and
// the hybrid of both. It does not make groups: runtimes and engines do that
// for their own containers.
//
//	g, err := cgroup.OfProcess(pid)
//	...
//	s, err := g.Stats() // a handful of small file reads
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	cgroups "github.com/containerd/cgroups/v3"
)

// Group is one control group: a directory in each v1 hierarchy, a directory in
// the unified hierarchy, or both on a hybrid host. It holds no open files and
// is safe for concurrent use.
type Group struct {
	v1      map[string]string // controller → directory
	unified string            // directory in the unified hierarchy, "" if that is not mounted
}

// OfProcess returns the group of a process, as found in /proc now. The error
// is fs.ErrNotExist when there is no such process.
func OfProcess(pid int) (*Group, error) {
	return host{proc: "/proc"}.ofProcess(pid)
}

// Open returns the group at an absolute path below the root of each mounted
// hierarchy, such as "/flash-sandbox/sb-1". Hierarchies where it does not
// exist are left out; the error is fs.ErrNotExist when it exists in none.
func Open(groupPath string) (*Group, error) {
	return host{proc: "/proc"}.open(groupPath)
}

// Children returns the names of the groups directly below an absolute path, in
// any hierarchy, sorted. A path that does not exist has none.
func Children(groupPath string) ([]string, error) {
	return host{proc: "/proc"}.children(groupPath)
}

// Controllers returns the names of the controllers that this host offers, in
// v1 hierarchies or in the unified one, sorted.
func Controllers() ([]string, error) {
	return host{proc: "/proc"}.controllers()
}

// dir returns the directory that holds the files of a controller, and whether
// it is of cgroup v2. It is "" where no hierarchy has the controller.
func (g *Group) dir(controller string) (dir string, v2 bool) {
	if d, ok := g.v1[controller]; ok {
		return d, false
	}
	return g.unified, g.unified != ""
}

// Dirs returns every directory of the group, sorted, each once.
func (g *Group) Dirs() []string {
	var dirs []string
	for _, d := range g.v1 {
		dirs = append(dirs, d)
	}
	if g.unified != "" {
		dirs = append(dirs, g.unified)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// host is where processes and mounts are looked up; tests have their own.
type host struct{ proc string }

func (h host) ofProcess(pid int) (*Group, error) {
	v1, unified, err := cgroups.ParseCgroupFileUnified(filepath.Join(h.proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("cgroups of process %d: %w", pid, err)
	}
	mounts, err := h.mounts()
	if err != nil {
		return nil, err
	}
	g := &Group{v1: map[string]string{}}
	for controller, p := range v1 {
		m, ok := mounts.v1[controller]
		if !ok {
			continue
		}
		if g.v1[controller], err = m.dir(p); err != nil {
			return nil, fmt.Errorf("cgroup %s of process %d: %w", controller, pid, err)
		}
	}
	if unified != "" && mounts.unified != nil {
		if g.unified, err = mounts.unified.dir(unified); err != nil {
			return nil, fmt.Errorf("cgroup of process %d: %w", pid, err)
		}
	}
	if len(g.v1) == 0 && g.unified == "" {
		return nil, fmt.Errorf("cgroups of process %d: no cgroup hierarchy is mounted", pid)
	}
	return g, nil
}

func (h host) open(groupPath string) (*Group, error) {
	if !strings.HasPrefix(groupPath, "/") || path.Clean(groupPath) != groupPath {
		return nil, fmt.Errorf("cgroup path %q is not absolute and clean", groupPath)
	}
	mounts, err := h.mounts()
	if err != nil {
		return nil, err
	}
	g := &Group{v1: map[string]string{}}
	for controller, m := range mounts.v1 {
		if d := filepath.Join(m.point, groupPath); isDir(d) {
			g.v1[controller] = d
		}
	}
	if m := mounts.unified; m != nil {
		if d := filepath.Join(m.point, groupPath); isDir(d) {
			g.unified = d
		}
	}
	if len(g.v1) == 0 && g.unified == "" {
		return nil, fmt.Errorf("cgroup %s: %w", groupPath, fs.ErrNotExist)
	}
	return g, nil
}

func (h host) children(groupPath string) ([]string, error) {
	g, err := h.open(groupPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range g.Dirs() {
		entries, err := os.ReadDir(d)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (h host) controllers() ([]string, error) {
	mounts, err := h.mounts()
	if err != nil {
		return nil, err
	}
	var names []string
	for c := range mounts.v1 {
		if !strings.Contains(c, "=") { // named hierarchies have no controller
			names = append(names, c)
		}
	}
	if mounts.unified != nil {
		b, err := os.ReadFile(filepath.Join(mounts.unified.point, "cgroup.controllers"))
		if err != nil {
			return nil, err
		}
		names = append(names, strings.Fields(string(b))...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func isDir(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.IsDir()
}
