package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flash-sandbox/flash-sandbox/bench/report"
)

// facts says what was measured on what.
func (b *bench) facts(ctx context.Context) []report.Fact {
	var out []report.Fact
	add := func(name, text string) {
		if text = strings.TrimSpace(text); text != "" {
			out = append(out, report.Fact{Name: name, Text: text})
		}
	}
	add("time", b.run.Started.UTC().Format("2006-01-02 15:04 UTC"))
	add("command", b.run.Command)
	add("seed", b.run.Options["seed"])
	commit, _ := exec.CommandContext(ctx, "git", "-C", b.lab.Repository(), "describe", "--always", "--dirty").Output()
	add("commit", string(commit))
	add("machine", fmt.Sprintf("%d cores, %s, %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal")))
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		add("kernel", unix.ByteSliceToString(u.Sysname[:])+" "+unix.ByteSliceToString(u.Release[:])+", "+cgroups())
	}
	load, _ := os.ReadFile("/proc/loadavg")
	add("load at the start", string(load))
	add("go", runtime.Version())
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "gvisor.dev/gvisor" {
				add("gvisor", m.Version)
			}
		}
	}
	if !b.usesDocker() {
		return out
	}
	if e, err := b.lab.Docker(ctx); err == nil {
		add("docker engine", e.Version)
	}
	return out
}

func (b *bench) usesDocker() bool {
	for _, p := range b.run.Peers {
		if strings.Contains(p, "docker") {
			return true
		}
	}
	return false
}

// field returns the value of the first line of a file that has the name.
func field(file, name string) string {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// cgroups says which version of control groups there is.
func cgroups() string {
	const cgroup2 = 0x63677270
	var s unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &s) == nil && s.Type == cgroup2 {
		return "cgroup v2"
	}
	return "cgroup v1"
}
