package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tree lays files out below a fresh directory and returns it. "@" in a content
// stands for that directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		b := []byte(content)
		b = slices.Concat(split(b, '@', []byte(root))...)
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func split(b []byte, sep byte, with []byte) (parts [][]byte) {
	for {
		i := slices.Index(b, sep)
		if i < 0 {
			return append(parts, b)
		}
		parts = append(parts, b[:i], with)
		b = b[i+1:]
	}
}

const v1Mounts = `31 23 0:28 / @/fs rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / @/fs/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / @/fs/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / @/fs/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / @/fs/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / @/fs/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / @/fs/unified rw,relatime - cgroup2 cgroup2 rw
`

func v1Tree(t *testing.T) string {
	return tree(t, map[string]string{
		"proc/self/mountinfo":              v1Mounts,
		"proc/7/cgroup":                    "5:name=systemd:/x\n4:memory:/a/b\n3:cpu,cpuacct:/a/b\n2:blkio:/a/b\n1:pids:/a/b\n0::/x\n",
		"fs/memory/a/b/memory.stat":        "cache 9\ninactive_file 1\nhierarchical_memory_limit 268435456\ntotal_inactive_file 1000\n",
		"fs/memory/a/b/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",

		"fs/memory/a/b/memory.usage_in_bytes":                    "5000\n",
		"fs/cpu,cpuacct/a/b/cpuacct.usage":                       "1500000000\n",
		"fs/cpu,cpuacct/a/b/cpu.cfs_quota_us":                    "-1\n",
		"fs/pids/a/b/pids.current":                               "4\n",
		"fs/systemd/x/cgroup.procs":                              "7\n",
		"fs/unified/x/cgroup.procs":                              "7\n",
		"fs/unified/cgroup.controllers":                          "\n",
		"fs/blkio/a/b/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\n8:16 Write 2\nTotal 33\n",
	})
}

func v2Tree(t *testing.T) string {
	return tree(t, map[string]string{
		"proc/self/mountinfo":      "41 31 0:38 / @/fs rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n",
		"proc/7/cgroup":            "0::/a/b\n",
		"fs/a/b/memory.stat":       "anon 1\ninactive_file 1000\n",
		"fs/a/b/memory.current":    "5000\n",
		"fs/a/b/memory.max":        "268435456\n",
		"fs/a/b/memory.events":     "low 0\nhigh 0\nmax 4\noom 1\noom_kill 3\noom_group_kill 0\n",
		"fs/a/b/cpu.stat":          "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n",
		"fs/a/b/cpu.max":           "max 100000\n",
		"fs/a/b/pids.current":      "4\n",
		"fs/a/b/io.stat":           "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
		"fs/a/b/c/cgroup.procs":    "",
		"fs/cgroup.controllers":    "cpuset cpu io memory pids\n",
		"fs/other/cgroup.procs":    "",
		"fs/a/plain-file-no-group": "",
	})
}

func TestStats(t *testing.T) {
	want := Stats{
		CPU: 1500 * time.Millisecond, MemoryUsageBytes: 4000, MemoryLimitBytes: 256 << 20,
		Pids: 4, BlockReadBytes: 11, BlockWriteBytes: 22,
	}
	for name, root := range map[string]string{"v1": v1Tree(t), "v2": v2Tree(t)} {
		t.Run(name, func(t *testing.T) {
			g, err := host{proc: root + "/proc"}.ofProcess(7)
			if err != nil {
				t.Fatal(err)
			}
			got, err := g.Stats()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if n, err := g.OOMKills(); err != nil || n != 3 {
				t.Errorf("OOMKills = %d, %v; want 3", n, err)
			}
			if err := os.RemoveAll(root + "/fs"); err != nil {
				t.Fatal(err)
			}
			if _, err := g.Stats(); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Stats of a removed group: %v; want fs.ErrNotExist", err)
			}
		})
	}
}

func TestUnlimited(t *testing.T) {
	for name, c := range map[string]struct{ root, file, content string }{
		"v1": {v1Tree(t), "fs/memory/a/b/memory.stat", "hierarchical_memory_limit 9223372036854771712\n"},
		"v2": {v2Tree(t), "fs/a/b/memory.max", "max\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(c.root, c.file), []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			g, err := host{proc: c.root + "/proc"}.ofProcess(7)
			if err != nil {
				t.Fatal(err)
			}
			if s, err := g.Stats(); err != nil || s.MemoryLimitBytes != 0 {
				t.Errorf("limit = %d, %v; want 0", s.MemoryLimitBytes, err)
			}
		})
	}
}

func TestSetCPU(t *testing.T) {
	for _, c := range []struct {
		cores  float64
		v1, v2 string
	}{
		{0.5, "50000", "50000 100000"},
		{2, "200000", "200000 100000"},
		{0.0001, "1000", "1000 100000"}, // the kernel takes no less
		{0, "-1", "max 100000"},
	} {
		t.Run(fmt.Sprint(c.cores), func(t *testing.T) {
			check := func(root, file, want string) {
				g, err := host{proc: root + "/proc"}.ofProcess(7)
				if err != nil {
					t.Fatal(err)
				}
				if err := g.SetCPU(c.cores); err != nil {
					t.Fatal(err)
				}
				if b, err := os.ReadFile(filepath.Join(root, file)); err != nil || string(b) != want {
					t.Errorf("%s = %q, %v; want %q", file, b, err, want)
				}
			}
			check(v1Tree(t), "fs/cpu,cpuacct/a/b/cpu.cfs_quota_us", c.v1)
			check(v2Tree(t), "fs/a/b/cpu.max", c.v2)
		})
	}
	if err := (&Group{}).SetCPU(1); err == nil {
		t.Error("SetCPU without a cpu controller succeeded")
	}
}

func TestDisableSwap(t *testing.T) {
	for _, c := range []struct{ root, limit, file, want string }{
		{v1Tree(t), "fs/memory/a/b/memory.limit_in_bytes", "fs/memory/a/b/memory.memsw.limit_in_bytes", "1234"},
		{v2Tree(t), "fs/a/b/memory.max", "fs/a/b/memory.swap.max", "0"},
	} {
		g, err := host{proc: c.root + "/proc"}.ofProcess(7)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.root, c.limit), []byte("1234\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.root, c.file), []byte("9\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := g.DisableSwap(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(c.root, c.file)); err != nil || string(b) != c.want {
			t.Errorf("%s = %q, %v; want %q", c.file, b, err, c.want)
		}
	}
}

func TestOpenAndChildren(t *testing.T) {
	h := host{proc: v2Tree(t) + "/proc"}
	if _, err := h.open("/a/b"); err != nil {
		t.Error(err)
	}
	if _, err := h.open("/a/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of a group that is not there: %v", err)
	}
	for _, p := range []string{"a/b", "/a/../b", "", "/a/"} {
		if _, err := h.open(p); err == nil {
			t.Errorf("open(%q) succeeded", p)
		}
	}
	if got, err := h.children("/a"); err != nil || !slices.Equal(got, []string{"b"}) {
		t.Errorf("children = %v, %v", got, err)
	}
	if got, err := h.children("/none"); err != nil || len(got) != 0 {
		t.Errorf("children of nothing = %v, %v", got, err)
	}
	if got, err := h.controllers(); err != nil || !slices.Equal(got, []string{"cpu", "cpuset", "io", "memory", "pids"}) {
		t.Errorf("v2 controllers = %v, %v", got, err)
	}
	h = host{proc: v1Tree(t) + "/proc"}
	if got, err := h.controllers(); err != nil || !slices.Equal(got, []string{"blkio", "cpu", "cpuacct", "memory", "pids"}) {
		t.Errorf("v1 controllers = %v, %v", got, err)
	}
}

func TestMountRoot(t *testing.T) {
	for _, c := range []struct{ root, group, want string }{
		{"/", "/a", "/m/a"},
		{"/", "/", "/m"},
		{"/", "/../a", ""},
		{"/docker/x", "/docker/x/a", "/m/a"},
		{"/docker/x", "/docker/x", "/m"},
		{"/docker/x", "/docker/xy", ""},
		{"/docker/x", "/other", ""},
	} {
		m := mount{root: c.root, point: "/m"}
		got, err := m.dir(c.group)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("mount of %s, group %s: %q, %v; want %q", c.root, c.group, got, err, c.want)
		}
	}
}

// TestThisHost runs against the kernel's own files, whatever version they are.
func TestThisHost(t *testing.T) {
	g, err := OfProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Dirs()) == 0 {
		t.Fatal("no directories")
	}
	if _, err := g.Stats(); err != nil {
		t.Error(err)
	}
	if _, err := OfProcess(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OfProcess of no process: %v", err)
	}
	names, err := Controllers()
	if err != nil || len(names) == 0 {
		t.Errorf("Controllers = %v, %v", names, err)
	}
}

// TestRemove kills a process in a real group with a child group and removes both.
func TestRemove(t *testing.T) {
	ms, err := host{proc: "/proc"}.mounts()
	if err != nil {
		t.Fatal(err)
	}
	m := ms.v1["pids"]
	if m == nil {
		m = ms.unified
	}
	if os.Getuid() != 0 || m == nil {
		t.Fatal("needs root and a mounted cgroup hierarchy")
	}
	name := fmt.Sprintf("/fsb-cgroup-test-%d", os.Getpid())
	sub := filepath.Join(m.point, name, "sub")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	g, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	defer g.Remove(ctx)
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	if err := write(sub, "cgroup.procs", fmt.Sprint(c.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("Procs = %v, %v; want the sleeper %d", pids, err, c.Process.Pid)
	}
	if err := g.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group is still there: %v", err)
	}
	if err := g.Remove(ctx); err != nil {
		t.Errorf("second Remove: %v", err)
	}
}
