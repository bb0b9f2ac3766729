package api

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// Sandbox is a sandbox as the wire shows it: in replies to create and get, and
// in the list of GET /status?sandboxes=true. Members that published clients
// know are never null.
type Sandbox struct {
	ID                  string            `json:"id" doc:"Names the sandbox."`
	Status              string            `json:"status" enum:"creating,running,paused,stopping,stopped,failed" doc:"Where it stands."`
	LifecycleState      string            `json:"lifecycle_state" doc:"The same in the words of the status counts."`
	NodeID              string            `json:"node_id" doc:"The machine it runs on."`
	Backend             string            `json:"backend" doc:"What isolates it, such as gvisor."`
	Type                string            `json:"type" doc:"The same as backend, by its older name."`
	Image               string            `json:"image" doc:"The image reference asked for."`
	Digest              string            `json:"digest,omitempty" doc:"The image's manifest digest."`
	Command             []string          `json:"command" doc:"What replaces the image's own command; empty: nothing does."`
	Env                 map[string]string `json:"env,omitempty" doc:"Environment variables added to the image's."`
	CreatedAt           string            `json:"created_at" format:"date-time" doc:"When it was asked for."`
	ReadyAt             string            `json:"ready_at,omitempty" format:"date-time" doc:"When it first ran."`
	MemoryMB            int64             `json:"memory_mb" doc:"Memory limit in MiB."`
	CPUCores            float64           `json:"cpu_cores" doc:"CPU limit in cores; 0: unbounded."`
	VCPUCount           int64             `json:"vcpu_count" doc:"The CPU limit rounded up to whole cores; 0: unbounded."`
	MemoryRequestMB     int64             `json:"memory_request_mb" doc:"As memory_mb."`
	CPURequestCores     float64           `json:"cpu_request_cores" doc:"As cpu_cores."`
	TTLSeconds          int64             `json:"ttl_seconds" doc:"Always 0: no limit."`
	Ephemeral           bool              `json:"ephemeral" doc:"Always false."`
	ExposePorts         []int             `json:"expose_ports" doc:"Always empty."`
	RoutingEpoch        int64             `json:"routing_epoch" doc:"Always 0."`
	ResidentMemoryBytes int64             `json:"resident_memory_bytes" doc:"Always 0; see the metrics."`
	DurationMS          float64           `json:"duration_ms" doc:"How long it took from the request until it ran."`
	ForkDurationMS      float64           `json:"fork_duration_ms" doc:"Always 0."`
	OperationID         string            `json:"operation_id" doc:"Always empty."`
	Ending              *flash.Ending     `json:"ending,omitempty" doc:"How it ended, once stopped or failed."`
	SnapshotID          string            `json:"snapshot_id,omitempty" doc:"The snapshot it was made from."`
	Metadata            map[string]any    `json:"metadata,omitempty" doc:"As given to create."`
}

// SandboxOf describes s, which runs on the named node.
func SandboxOf(s *flash.Sandbox, node string) Sandbox {
	w := Sandbox{
		ID: string(s.ID), Status: string(s.State), LifecycleState: lifecycle(s.State), NodeID: node,
		Backend: s.Backend, Type: s.Backend, Image: s.Image, Digest: s.Digest, Command: s.Command, Env: s.Env,
		CreatedAt: stamp(s.CreatedAt), ReadyAt: stamp(s.ReadyAt),
		MemoryMB: s.MemoryMB, CPUCores: finite(s.CPUCores), VCPUCount: int64(math.Ceil(finite(s.CPUCores))),
		MemoryRequestMB: s.MemoryMB, CPURequestCores: finite(s.CPUCores),
		ExposePorts: []int{}, Ending: s.Ending, SnapshotID: string(s.Restored), Metadata: s.Metadata,
	}
	if w.Command == nil {
		w.Command = []string{}
	}
	if !s.ReadyAt.IsZero() && s.ReadyAt.After(s.CreatedAt) {
		w.DurationMS = Milliseconds(s.ReadyAt.Sub(s.CreatedAt))
	}
	return w
}

// Flash turns w back into what it describes.
func (w *Sandbox) Flash() *flash.Sandbox {
	s := &flash.Sandbox{
		ID: flash.ID(w.ID), State: flash.State(w.Status), Backend: w.Backend, Image: w.Image, Digest: w.Digest,
		Env: w.Env, MemoryMB: w.MemoryMB, CPUCores: w.CPUCores,
		CreatedAt: unstamp(w.CreatedAt), ReadyAt: unstamp(w.ReadyAt),
		Ending: w.Ending, Restored: flash.ID(w.SnapshotID), Metadata: w.Metadata,
	}
	if len(w.Command) > 0 {
		s.Command = w.Command
	}
	return s
}

// lifecycle returns a state in the words of the counts in GET /status, where
// it has one.
func lifecycle(s flash.State) string {
	switch s {
	case flash.Creating:
		return "pending_booting"
	case flash.Stopping:
		return "tearing_down"
	}
	return string(s)
}

// Lifecycle counts sandboxes by phase.
type Lifecycle struct {
	PendingBooting int `json:"pending_booting"`
	PendingSetup   int `json:"pending_setup"`
	Running        int `json:"running"`
	TearingDown    int `json:"tearing_down"`
}

// Add counts one sandbox. Paused and ended ones are in no phase.
func (l *Lifecycle) Add(s flash.State) {
	switch s {
	case flash.Creating:
		l.PendingBooting++
	case flash.Running:
		l.Running++
	case flash.Stopping:
		l.TearingDown++
	}
}

// Node is the daemon as GET /status shows it.
type Node struct {
	ID               string    `json:"id"`
	Status           string    `json:"status" enum:"ready,draining,unavailable"`
	Available        bool      `json:"available"`
	BackendTypes     []string  `json:"backend_types" doc:"Backends available here, best first."`
	RunningCount     int       `json:"running_count"`
	LastHeartbeatAgo string    `json:"last_heartbeat_ago"`
	Lifecycle        Lifecycle `json:"sandbox_lifecycle"`
}

// Status is the reply of GET /status.
type Status struct {
	NodeCount            int       `json:"node_count"`
	AvailableNodeCount   int       `json:"available_node_count"`
	UnavailableNodeCount int       `json:"unavailable_node_count"`
	SandboxCount         int       `json:"sandbox_count"`
	Lifecycle            Lifecycle `json:"sandbox_lifecycle"`
	Nodes                []Node    `json:"nodes"`
	Sandboxes            []Sandbox `json:"sandboxes,omitzero" doc:"Only with sandboxes=true."`
}

// Exec is the reply of exec. The server writes it piecemeal, see
// internal/api/rest; clients read it with this type.
type Exec struct {
	Stdout        string  `json:"stdout" doc:"UTF-8; other bytes are replaced by U+FFFD."`
	Stderr        string  `json:"stderr" doc:"UTF-8; other bytes are replaced by U+FFFD."`
	ExitCode      int     `json:"exit_code" doc:"128+n for signal n, 127: not found, 126: not executable, -1: not known."`
	DurationMS    float64 `json:"duration_ms"`
	Error         string  `json:"error" doc:"Why the command did not end by itself; empty otherwise."`
	Cause         string  `json:"cause" enum:"exited,signal,oom,timeout,cancelled,sandbox_gone,backend_lost,unknown" doc:"How it ended."`
	Truncated     bool    `json:"truncated" doc:"Whether output was cut out of the middle."`
	StdoutDropped int64   `json:"stdout_dropped_bytes"`
	StderrDropped int64   `json:"stderr_dropped_bytes"`
	Message       string  `json:"message,omitempty" doc:"The ending in a sentence."`
}

// Python is the reply of run_python.
type Python struct {
	Result string `json:"result" doc:"Standard output; of code that failed, standard output and error."`
	Exec
}

// ExecError returns the text for Exec.Error.
func ExecError(e flash.Ending) string {
	if e.Cause == flash.CauseExited || e.Cause == "" {
		return ""
	}
	if e.Message != "" {
		return e.Message
	}
	switch e.Cause {
	case flash.CauseTimeout:
		return "the command was killed at its deadline"
	case flash.CauseOOM:
		return "the command was killed for passing the memory limit"
	case flash.CauseSignal:
		if e.ExitCode > 128 {
			return "the command was killed by signal " + strconv.Itoa(e.ExitCode-128)
		}
	case flash.CauseCancelled:
		return "the command was killed because its caller left"
	}
	return "the command ended: " + strings.ReplaceAll(string(e.Cause), "_", " ")
}

// Flash turns w back into what it describes, as far as text allows.
func (w *Exec) Flash() *flash.ExecResult {
	return &flash.ExecResult{
		Stdout: []byte(w.Stdout), Stderr: []byte(w.Stderr), StdoutDropped: w.StdoutDropped, StderrDropped: w.StderrDropped,
		Ending:   flash.Ending{Cause: flash.Cause(w.Cause), ExitCode: w.ExitCode, Message: w.Message},
		Duration: time.Duration(w.DurationMS * float64(time.Millisecond)),
	}
}

// Snapshot is the reply of snapshot, and an element of GET /snapshots.
type Snapshot struct {
	SnapshotPath      string `json:"snapshot_path" doc:"Hand it to create to restore."`
	MemFilePath       string `json:"mem_file_path" doc:"Hand it to create as well; empty if the snapshot holds no memory."`
	NodeID            string `json:"node_id" doc:"The snapshot's id, by the name under which clients delete it."`
	ID                string `json:"id" doc:"The snapshot's id."`
	SandboxID         string `json:"sandbox_id"`
	Backend           string `json:"backend"`
	Memory            bool   `json:"memory" doc:"Whether memory and processes are in it."`
	SizeBytes         int64  `json:"size_bytes"`
	SnapshotSizeBytes int64  `json:"snapshot_size_bytes" doc:"As size_bytes."`
	Detail            string `json:"detail" doc:"What is in it and what is not."`
	CreatedAt         string `json:"created_at" format:"date-time"`
}

// SnapshotOf describes s.
func SnapshotOf(s *flash.Snapshot) Snapshot {
	return Snapshot{
		SnapshotPath: s.SnapshotPath, MemFilePath: s.MemFilePath, NodeID: string(s.ID), ID: string(s.ID), SandboxID: string(s.SandboxID),
		Backend: s.Backend, Memory: s.Memory, SizeBytes: s.SizeBytes, SnapshotSizeBytes: s.SizeBytes, Detail: s.Detail, CreatedAt: stamp(s.CreatedAt),
	}
}

// Flash turns w back into what it describes.
func (w *Snapshot) Flash() *flash.Snapshot {
	return &flash.Snapshot{
		ID: flash.ID(w.ID), SandboxID: flash.ID(w.SandboxID), Backend: w.Backend, SnapshotPath: w.SnapshotPath, MemFilePath: w.MemFilePath,
		Memory: w.Memory, SizeBytes: w.SizeBytes, Detail: w.Detail, CreatedAt: unstamp(w.CreatedAt),
	}
}

// Lists are objects with one member, so that more can be said later.
type (
	// Snapshots is the reply of GET /snapshots.
	Snapshots struct {
		Snapshots []Snapshot `json:"snapshots"`
	}
	// Images is the reply of GET /images.
	Images struct {
		Images []flash.Image `json:"images"`
	}
	// Backends is the reply of GET /backends.
	Backends struct {
		Backends []flash.BackendStatus `json:"backends"`
	}
)

// Info is the reply of platform_info. Clients from 0.1.6 on parse the text;
// RPC clients get the same text.
type Info struct {
	Info string `json:"info" doc:"A JSON object in a string."`
}

// InfoOf describes p.
func InfoOf(p *flash.PlatformInfo) Info {
	q := *p
	q.CPUCores = finite(q.CPUCores)
	text, err := json.Marshal(&q)
	if err != nil {
		text = []byte("{}") // can't happen: strings and finite numbers only
	}
	return Info{Info: string(text)}
}

// MetricsOf returns m with numbers that JSON can't write set to 0.
func MetricsOf(m *flash.Metrics) flash.Metrics {
	c := *m
	c.MemoryPercent, c.CPUPercent = finite(c.MemoryPercent), finite(c.CPUPercent)
	return c
}

// Milliseconds returns d in milliseconds.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func unstamp(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

// quote returns s quoted and no longer than fits a sentence.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.QuoteToASCII(strings.ToValidUTF8(s[:most], "")) + "..."
	}
	return strconv.QuoteToASCII(s)
}
