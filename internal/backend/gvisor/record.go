package gvisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// recordVersion is the version of the format of machine.json.
const recordVersion = 1

// record is machine.json: what must be known of a machine to use it. It is
// written before the sandbox starts, without the processes, and again after.
type record struct {
	Version     int
	Args        []string
	Env         []string
	Dir         string
	User        account
	Rootfs      string
	OwnTmp      bool // /tmp is a mount, see writeTmp
	Hostname    string
	MemoryBytes int64
	CPUs        float64
	Pids        int64
	Cgroup      string // path below the root of each hierarchy

	SandboxPID int
	GoferPID   int
	Started    uint64 // start time of the sandbox process, in clock ticks since Boot
	Boot       string // boot id of the host
}

// Names of files in a machine's directory.
const (
	recordFile = "machine.json"
	endingFile = "ending.json"
	phaseFile  = "phase"
	upperFile  = "upper.tar"
	stdinFile  = "stdin"
	tmpDir     = "tmp"
	runscDir   = "r"
)

// writeFile replaces a file at once, so that a reader after a crash finds the
// old content or the new.
func writeFile(dir, name string, content []byte) error {
	tmp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(dir, name, b)
}

func readRecord(dir string) (record, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("%s: %w", recordFile, err)
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("%s: version %d is not known", recordFile, r.Version)
	}
	return r, nil
}

// readEnding returns how a machine ended, if that is on record.
func readEnding(dir string) (flash.Ending, bool) {
	b, err := os.ReadFile(filepath.Join(dir, endingFile))
	if err != nil {
		return flash.Ending{}, false
	}
	var e flash.Ending
	if err := json.Unmarshal(b, &e); err != nil {
		return flash.Ending{}, false
	}
	return e, true
}

// startTime returns when a process started, in clock ticks since boot. A
// process that has ended and only waits for its parent is fs.ErrNotExist.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command name, in parentheses, may hold anything.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, errors.New("malformed /proc/PID/stat")
	}
	f := bytes.Fields(b[i+1:])
	const state, start = 3, 22 // as proc(5) numbers them
	if len(f) <= start-state {
		return 0, errors.New("malformed /proc/PID/stat")
	}
	if s := f[0]; s[0] == 'Z' || s[0] == 'X' {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(string(f[start-state]), 10, 64)
}

// bootID returns what tells this boot of the host from others.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
})

// alive reports whether the sandbox process of r is there. A process of the
// same number that started at another time is another one.
func (r *record) alive() bool {
	if r.SandboxPID <= 0 || r.Boot != bootID() {
		return false
	}
	t, err := startTime(r.SandboxPID)
	return err == nil && t == r.Started
}

// exists reports whether a directory entry is there.
func exists(p string) bool {
	_, err := os.Lstat(p)
	return !errors.Is(err, fs.ErrNotExist)
}
