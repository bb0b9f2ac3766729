package flash

import "time"

// ExecOptions asks for one command in a running sandbox.
type ExecOptions struct {
	Command []string      // argv, no shell
	Timeout time.Duration // kill it after this long; 0: no deadline of its own
}

// Validate checks the options without I/O.
func (o *ExecOptions) Validate() error {
	if o.Timeout < 0 {
		return Errorf(Invalid, "timeout_ms: is negative")
	}
	return ValidateCommand("command", o.Command, false)
}

// ExecResult is how a command went. A command that ran and failed is a
// result, not an error: 127 and 126 stand for "not found" and "not
// executable", with the text on Stderr.
type ExecResult struct {
	Stdout, Stderr []byte // as the process wrote them; not necessarily UTF-8
	// StdoutDropped and StderrDropped count bytes cut out of the middle where
	// output passed the daemon's limit. Stdout and Stderr then hold head and
	// tail with a line between them that says so.
	StdoutDropped, StderrDropped int64
	Ending                       Ending
	Duration                     time.Duration // from the request to the end of the process
}

// Truncated reports whether output was cut.
func (r *ExecResult) Truncated() bool { return r.StdoutDropped > 0 || r.StderrDropped > 0 }

// PythonOptions asks for a run of Python code.
type PythonOptions struct {
	Code    string
	Timeout time.Duration // as in ExecOptions
}

// MaxPythonBytes is the longest code RunPython takes: what one argument of
// execve holds on Linux.
const MaxPythonBytes = 128<<10 - 1

// Validate checks the options without I/O.
func (o *PythonOptions) Validate() error {
	switch {
	case o.Timeout < 0:
		return Errorf(Invalid, "timeout_ms: is negative")
	case len(o.Code) > MaxPythonBytes:
		return Errorf(Invalid, "code: is %d bytes long, at most %d are accepted", len(o.Code), MaxPythonBytes)
	}
	for i := range len(o.Code) {
		if o.Code[i] == 0 {
			return Errorf(Invalid, "code: holds a NUL byte at offset %d", i)
		}
	}
	return nil
}

// PlatformInfo describes a sandbox from inside. The wire sends it as a JSON
// object; the keys are the json tags.
type PlatformInfo struct {
	SandboxID string  `json:"sandbox_id"`
	Backend   string  `json:"backend"`
	Isolation string  `json:"isolation"` // "container", "userspace-kernel" or "microvm"
	System    string  `json:"system"`    // "Linux"
	Release   string  `json:"release"`   // of the kernel the sandbox sees
	Version   string  `json:"version"`   // of the kernel the sandbox sees
	Machine   string  `json:"machine"`   // "x86_64", "aarch64"
	Hostname  string  `json:"hostname"`  // inside
	OS        string  `json:"os"`        // PRETTY_NAME of /etc/os-release, or ""
	Python    string  `json:"python"`    // version of the image's Python, or ""
	Image     string  `json:"image"`     // reference asked for
	CPUCores  float64 `json:"cpu_cores"` // limit, 0: unbounded
	MemoryMB  int64   `json:"memory_mb"` // limit in MiB
}

// Metrics is a reading of one sandbox's resource use. A number that the
// backend can't get is 0; BackendStatus.Notes says which.
type Metrics struct {
	MemoryUsageBytes uint64  `json:"memory_usage_bytes"` // working set: without reclaimable page cache
	MemoryLimitBytes uint64  `json:"memory_limit_bytes"`
	MemoryPercent    float64 `json:"memory_percent"` // of the limit, 0 to 100
	CPUPercent       float64 `json:"cpu_percent"`    // 100 is one core, since the previous reading (or the start)
	PidsCurrent      uint64  `json:"pids_current"`
	NetRxBytes       uint64  `json:"net_rx_bytes"`
	NetTxBytes       uint64  `json:"net_tx_bytes"`
	BlockReadBytes   uint64  `json:"block_read_bytes"`
	BlockWriteBytes  uint64  `json:"block_write_bytes"`
}

// Snapshot is a saved state of a sandbox.
type Snapshot struct {
	ID           ID
	SandboxID    ID
	Backend      string
	SnapshotPath string // hand both paths to Create to restore
	MemFilePath  string // empty when the snapshot holds no memory
	Memory       bool   // whether memory and processes are in it
	SizeBytes    int64
	Detail       string // one sentence: what is in it and what is not
	CreatedAt    time.Time
}

// Image is a cached image, or one on its way.
type Image struct {
	Reference string    `json:"reference"`
	Digest    string    `json:"digest,omitempty"`   // manifest digest; empty while being resolved
	State     string    `json:"state"`              // "pulling", "unpacking", "ready" or "failed"
	SizeBytes int64     `json:"size_bytes"`         // on disk, blobs and unpacked tree together
	DoneBytes int64     `json:"done_bytes"`         // while pulling: compressed bytes that have arrived
	WantBytes int64     `json:"want_bytes"`         // while pulling: compressed bytes in all, 0 when not known yet
	Leases    int       `json:"leases"`             // sandboxes and snapshots that hold it
	LastUsed  time.Time `json:"last_used,omitzero"` // for eviction
	Error     string    `json:"error,omitempty"`    // why it failed
}

// BackendStatus says what one backend offers here.
type BackendStatus struct {
	Name         string            `json:"name"`
	Available    bool              `json:"available"`
	Reason       string            `json:"reason,omitempty"` // why not available, in a sentence
	Isolation    string            `json:"isolation"`        // "container", "userspace-kernel", "microvm" or "none"
	Version      string            `json:"version,omitempty"`
	Capabilities []string          `json:"capabilities"`    // such as "exec", "pause", "snapshot", "restore", "metrics"
	Notes        []string          `json:"notes,omitempty"` // limits worth knowing, a sentence each
	Facts        map[string]string `json:"facts,omitempty"`
}
