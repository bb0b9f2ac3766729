package cgroup

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mount is one mounted hierarchy. Its root is the group that its mount point
// shows, which is not "/" inside a container that shares its host's namespace.
type mount struct{ root, point string }

type mounts struct {
	v1      map[string]*mount
	unified *mount
}

// dir returns the directory of the group that /proc/PID/cgroup calls p.
func (m *mount) dir(p string) (string, error) {
	if m.root == "/" {
		if strings.HasPrefix(p, "/..") {
			return "", fmt.Errorf("group %s is outside what is mounted here", p)
		}
		return filepath.Join(m.point, p), nil
	}
	rel, ok := strings.CutPrefix(p, m.root)
	if !ok || rel != "" && rel[0] != '/' {
		return "", fmt.Errorf("group %s is outside what is mounted here (%s)", p, m.root)
	}
	return filepath.Join(m.point, rel), nil
}

// mounts reads this process's mount table. Where a hierarchy is mounted more
// than once, the mount that shows its root wins, then the first.
func (h host) mounts() (mounts, error) {
	f, err := os.Open(filepath.Join(h.proc, "self/mountinfo"))
	if err != nil {
		return mounts{}, err
	}
	defer f.Close()
	ms := mounts{v1: map[string]*mount{}}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		// ID PARENT DEV ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE SUPEROPTIONS
		left, right, ok := strings.Cut(s.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		m := &mount{root: unescape.Replace(l[3]), point: unescape.Replace(l[4])}
		switch r[0] {
		case "cgroup2":
			if ms.unified == nil || ms.unified.root != "/" && m.root == "/" {
				ms.unified = m
			}
		case "cgroup":
			for opt := range strings.SplitSeq(r[2], ",") {
				if opt == "rw" || opt == "ro" {
					continue
				}
				if old := ms.v1[opt]; old == nil || old.root != "/" && m.root == "/" {
					ms.v1[opt] = m
				}
			}
		}
	}
	return ms, s.Err()
}

// unescape undoes the octal escapes of mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
