package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Options says what a Snapshot looks for.
type Options struct {
	// Marks are strings of which at least one stands in whatever is looked
	// for: in a process's command line, a mount, a cgroup's path, a socket's
	// path, a temporary file's name, or a container's or image's description.
	// None: DefaultMarks.
	Marks []string `json:"marks,omitempty"`
}

// DefaultMarks are in everything Flash Sandbox leaves on a host.
var DefaultMarks = []string{"fsb", "runsc", "flash-sandbox", "flash_sandbox"}

// Snapshot is what there was of the marked things on this host at one time.
type Snapshot struct {
	Options Options  `json:"options"`
	Items   []string `json:"items"` // one line each, sorted: "kind description"
}

// Take takes a Snapshot. Things that may not be read count as not there.
func Take(o Options) Snapshot {
	s := Snapshot{Options: o}
	items := map[string]bool{}
	for _, look := range []func(add func(kind, what, text string)){
		processes, mounts, cgroups, netns, links, sockets, tempFiles, engine,
	} {
		look(func(kind, what, text string) {
			// Namespaces and links carry no text of ours: they count where the
			// whole host is watched.
			if s.marked(text) || len(o.Marks) == 0 && (kind == "netns" || kind == "link") {
				items[kind+" "+what] = true
			}
		})
	}
	s.Items = slices.Sorted(maps.Keys(items))
	return s
}

func (s Snapshot) marked(text string) bool {
	marks := s.Options.Marks
	if len(marks) == 0 {
		marks = DefaultMarks
	}
	return slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(text, m) })
}

// Leaked lists what is there now and was not when s was taken.
func (s Snapshot) Leaked() []string {
	var out []string
	for _, item := range Take(s.Options).Items {
		if _, known := slices.BinarySearch(s.Items, item); !known {
			out = append(out, item)
		}
	}
	return out
}

// Settle waits until nothing is leaked, at most for the given time, and
// returns what still is.
func (s Snapshot) Settle(atMost time.Duration) []string {
	for deadline := time.Now().Add(atMost); ; time.Sleep(100 * time.Millisecond) {
		leaked := s.Leaked()
		if len(leaked) == 0 || time.Now().After(deadline) {
			return leaked
		}
	}
}

// Check fails the test with the list of what has been left behind since before.
func Check(t testing.TB, before Snapshot) {
	t.Helper()
	if leaked := before.Settle(10 * time.Second); len(leaked) > 0 {
		t.Errorf("left behind on the host:\n+ %s", strings.Join(leaked, "\n+ "))
	}
}

// processes leaves out the caller and its ancestors, whose command lines may
// well name the marks.
func processes(add func(kind, what, text string)) {
	skip := map[int]bool{}
	for pid := os.Getpid(); pid > 0 && !skip[pid]; pid = parent(pid) {
		skip[pid] = true
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || skip[pid] {
			continue
		}
		raw, err := os.ReadFile(dir + "/cmdline")
		if err != nil || len(raw) == 0 {
			continue
		}
		line := string(bytes.TrimSpace(bytes.ReplaceAll(raw, []byte{0}, []byte{' '})))
		env, _ := os.ReadFile(dir + "/environ")
		cwd, _ := os.Readlink(dir + "/cwd")
		add("process", fmt.Sprintf("%d %.200s", pid, line), line+"\x00"+string(env)+"\x00"+cwd)
	}
}

func parent(pid int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

func mounts(add func(kind, what, text string)) {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 6 {
			add("mount", f[4]+" ("+f[len(f)-3]+")", line)
		}
	}
}

// cgroups walks every hierarchy: the unified one and those of version 1 are
// mounted below the same place.
func cgroups(add func(kind, what, text string)) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // groups come and go while we walk
		}
		if d.IsDir() {
			add("cgroup", path, path)
		}
		return nil
	})
}

func netns(add func(kind, what, text string)) {
	for _, dir := range []string{"/run/netns", "/run/docker/netns"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			add("netns", filepath.Join(dir, e.Name()), "")
		}
	}
}

func links(add func(kind, what, text string)) {
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		if strings.HasPrefix(i.Name, "veth") || strings.HasPrefix(i.Name, "fsb") {
			add("link", i.Name, "")
		}
	}
}

func sockets(add func(kind, what, text string)) {
	data, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 8 {
			add("socket", f[7], f[7])
		}
	}
}

func tempFiles(add func(kind, what, text string)) {
	for _, dir := range []string{os.TempDir(), "/run"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			add("file", filepath.Join(dir, e.Name()), e.Name())
		}
	}
}

// engine looks at containers and images of a Docker engine, if one answers.
func engine(add func(kind, what, text string)) {
	for kind, path := range map[string]string{"container": "/v1.41/containers/json?all=1", "engine-image": "/v1.41/images/json?all=1"} {
		body, err := dockerGet(context.Background(), path)
		if err != nil {
			return
		}
		var list []json.RawMessage
		if json.Unmarshal(body, &list) != nil {
			return
		}
		for _, raw := range list {
			var one struct {
				ID    string `json:"Id"`
				Names []string
				Tags  []string `json:"RepoTags"`
			}
			if json.Unmarshal(raw, &one) == nil {
				add(kind, fmt.Sprintf("%.19s %v", one.ID, append(one.Names, one.Tags...)), string(raw))
			}
		}
	}
}
