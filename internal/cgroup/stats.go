package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stats is a reading of a group's counters. What this host has no controller
// for is 0.
type Stats struct {
	CPU              time.Duration // CPU time used so far, by all that were ever in the group
	MemoryUsageBytes uint64        // working set: without inactive page cache
	MemoryLimitBytes uint64        // 0: unlimited
	Pids             uint64        // processes and threads on the host
	BlockReadBytes   uint64
	BlockWriteBytes  uint64
}

// unlimited is the least v1 limit that means none: the kernel rounds the
// largest 64-bit number down to its page size, and pages are at most 64 KiB.
const unlimited = uint64(1<<63 - 1<<16)

// Stats reads the counters. The error is fs.ErrNotExist when the group is gone.
func (g *Group) Stats() (Stats, error) {
	var s Stats
	var r reader
	if dir, v2 := g.dir("memory"); dir != "" {
		usage, stat, inactive := "memory.usage_in_bytes", r.read(dir, "memory.stat"), "total_inactive_file"
		if v2 {
			usage, inactive = "memory.current", "inactive_file"
			s.MemoryLimitBytes = number(r.read(dir, "memory.max"))
		} else if n := field(stat, "hierarchical_memory_limit"); n < unlimited {
			s.MemoryLimitBytes = n
		}
		s.MemoryUsageBytes = number(r.read(dir, usage))
		s.MemoryUsageBytes -= min(s.MemoryUsageBytes, field(stat, inactive))
	}
	if dir, v2 := g.dir("cpuacct"); dir != "" {
		if v2 {
			s.CPU = time.Duration(field(r.read(dir, "cpu.stat"), "usage_usec")) * time.Microsecond
		} else {
			s.CPU = time.Duration(number(r.read(dir, "cpuacct.usage")))
		}
	}
	if dir, _ := g.dir("pids"); dir != "" {
		s.Pids = number(r.read(dir, "pids.current"))
	}
	if dir, v2 := g.dir("blkio"); dir != "" {
		if v2 {
			s.BlockReadBytes, s.BlockWriteBytes = ioStat(r.read(dir, "io.stat"))
		} else {
			s.BlockReadBytes, s.BlockWriteBytes = blkio(r.read(dir, "blkio.throttle.io_service_bytes_recursive"))
		}
	}
	if r.found == 0 {
		if r.err == nil {
			r.err = fs.ErrNotExist
		}
		return Stats{}, fmt.Errorf("read cgroup: %w", r.err)
	}
	return s, nil
}

// OOMKills returns how many processes of the group the kernel has killed for
// want of memory.
func (g *Group) OOMKills() (uint64, error) {
	dir, v2 := g.dir("memory")
	if dir == "" {
		return 0, errors.New("this host has no memory cgroup controller")
	}
	name := "memory.oom_control"
	if v2 {
		name = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	return field(b, "oom_kill"), nil
}

// reader reads small files and remembers whether any was there: the root group
// and hosts without a controller lack some, a group that is gone lacks all.
type reader struct {
	found int
	err   error
}

func (r *reader) read(dir, name string) []byte {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		r.err = errors.Join(r.err, err)
		return nil
	}
	r.found++
	return b
}

// number parses a file that holds one number. "max" is 0.
func number(b []byte) uint64 {
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n
}

// field finds "NAME NUMBER" in a file of such lines.
func field(b []byte, name string) uint64 {
	for line := range bytes.Lines(b) {
		if k, v, ok := bytes.Cut(line, []byte(" ")); ok && string(k) == name {
			return number(v)
		}
	}
	return 0
}

// ioStat sums v2's "8:0 rbytes=1 wbytes=2 rios=3 ..." over devices.
func ioStat(b []byte) (read, written uint64) {
	for f := range strings.FieldsSeq(string(b)) {
		switch k, v, _ := strings.Cut(f, "="); k {
		case "rbytes":
			read += number([]byte(v))
		case "wbytes":
			written += number([]byte(v))
		}
	}
	return read, written
}

// blkio sums v1's "8:0 Read 1" lines over devices.
func blkio(b []byte) (read, written uint64) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		switch f[1] {
		case "Read":
			read += number([]byte(f[2]))
		case "Write":
			written += number([]byte(f[2]))
		}
	}
	return read, written
}
