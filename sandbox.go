package flash

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Limits that Validate holds a request to.
const (
	MaxMemoryMB   = 16 << 20 // 16 TiB
	MaxCPUCores   = 4096
	MaxArgs       = 1 << 16
	MaxArgsBytes  = 1 << 20 // as Linux: well under what execve takes
	MaxImageBytes = 4096
)

// CreateOptions asks for a sandbox. The zero value of a field means "not
// given" where its comment does not say otherwise.
type CreateOptions struct {
	ID      ID                // chosen by the caller; empty: a fresh one. Taken: Exists
	Type    string            // backend name; "", "auto" and "any": the best one available
	Image   string            // registry reference, oci:DIR, oci-archive:FILE or docker-archive:FILE
	Command []string          // replaces the image's Cmd (its Entrypoint stays); empty: the image's own
	Env     map[string]string // added to the image's

	MemoryMB int64   // limit in MiB; 0: the daemon's default
	CPUCores float64 // limit in cores; 0: unbounded

	// SnapshotPath and MemFilePath, as a snapshot gave them, restore that
	// snapshot. Only paths inside the daemon's own snapshot store are taken.
	// Image may then be empty; Command and Env must be.
	SnapshotPath string
	MemFilePath  string

	KernelImage string // firecracker only
	InitrdPath  string // firecracker only

	Metadata map[string]any // opaque, kept and returned
}

// Validate checks everything that can be checked without I/O. Its error is
// [Invalid] and names the field as the wire spells it.
func (o *CreateOptions) Validate() error {
	if o.ID != "" {
		if _, err := ParseID(string(o.ID)); err != nil {
			return err
		}
	}
	for _, f := range []struct{ name, value string }{
		{"type", o.Type}, {"image", o.Image}, {"snapshot_path", o.SnapshotPath}, {"mem_file_path", o.MemFilePath},
		{"kernel_image", o.KernelImage}, {"initrd_path", o.InitrdPath},
	} {
		if len(f.value) > MaxImageBytes {
			return Errorf(Invalid, "%s: is longer than %d bytes", f.name, MaxImageBytes)
		}
		if strings.ContainsFunc(f.value, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return Errorf(Invalid, "%s: holds a control character", f.name)
		}
	}
	if o.SnapshotPath == "" {
		if o.MemFilePath != "" {
			return Errorf(Invalid, "mem_file_path: is given without snapshot_path")
		}
		if strings.TrimSpace(o.Image) == "" {
			return Errorf(Invalid, "image: is empty; give a reference such as \"alpine:latest\", or a snapshot_path")
		}
	} else if len(o.Env) > 0 {
		return Errorf(Invalid, "env: can't be changed when a snapshot is restored")
	}
	if err := ValidateCommand("command", o.Command, true); err != nil {
		return err
	}
	if err := ValidateEnv("env", o.Env); err != nil {
		return err
	}
	switch {
	case o.MemoryMB < 0:
		return Errorf(Invalid, "memory_mb: is %d; give the limit in MiB as a positive number, or 0 for the default", o.MemoryMB)
	case o.MemoryMB > MaxMemoryMB:
		return Errorf(Invalid, "memory_mb: is %d, at most %d (MiB) is accepted", o.MemoryMB, MaxMemoryMB)
	case math.IsNaN(o.CPUCores) || math.IsInf(o.CPUCores, 0):
		return Errorf(Invalid, "cpu_cores: is not a finite number")
	case o.CPUCores < 0:
		return Errorf(Invalid, "cpu_cores: is %g; give a positive number of cores, or 0 for no limit", o.CPUCores)
	case o.CPUCores > 0 && o.CPUCores < 0.01:
		return Errorf(Invalid, "cpu_cores: is %g, the smallest limit is 0.01; 0 means no limit", o.CPUCores)
	case o.CPUCores > MaxCPUCores:
		return Errorf(Invalid, "cpu_cores: is %g, at most %d is accepted", o.CPUCores, MaxCPUCores)
	}
	return nil
}

// ValidateCommand checks an argument vector: no NUL bytes, a program to run,
// and no more than execve takes. mayBeEmpty allows no command at all.
func ValidateCommand(field string, args []string, mayBeEmpty bool) error {
	if len(args) == 0 {
		if mayBeEmpty {
			return nil
		}
		return Errorf(Invalid, "%s: is empty; give a list such as [\"echo\", \"hi\"] or a shell string", field)
	}
	if args[0] == "" {
		return Errorf(Invalid, "%s: its first element, the program, is empty", field)
	}
	if len(args) > MaxArgs {
		return Errorf(Invalid, "%s: has %d elements, at most %d are accepted", field, len(args), MaxArgs)
	}
	total := 0
	for i, a := range args {
		if strings.IndexByte(a, 0) >= 0 {
			return Errorf(Invalid, "%s: element %d holds a NUL byte", field, i)
		}
		total += len(a) + 1
	}
	if total > MaxArgsBytes {
		return Errorf(Invalid, "%s: is %d bytes long, at most %d are accepted; write long input to a file", field, total, MaxArgsBytes)
	}
	return nil
}

// ValidateEnv checks environment variables: names without "=", NUL and not
// empty, values without NUL.
func ValidateEnv(field string, env map[string]string) error {
	total := 0
	for k, v := range env {
		switch {
		case k == "":
			return Errorf(Invalid, "%s: has a variable with an empty name", field)
		case strings.ContainsAny(k, "=\x00"):
			return Errorf(Invalid, "%s: the name %q holds '=' or a NUL byte", field, k)
		case strings.IndexByte(v, 0) >= 0:
			return Errorf(Invalid, "%s: the value of %q holds a NUL byte", field, k)
		}
		total += len(k) + len(v) + 2
	}
	if total > MaxArgsBytes {
		return Errorf(Invalid, "%s: is %d bytes long, at most %d are accepted", field, total, MaxArgsBytes)
	}
	return nil
}

// Sandbox is what is known of one sandbox. Values are snapshots: a Sandbox
// never changes after it was returned.
type Sandbox struct {
	ID        ID
	State     State
	Backend   string // the backend it runs on, such as "gvisor"
	Image     string // the reference asked for
	Digest    string // the image's manifest digest, "sha256:..."; empty until known
	Command   []string
	Env       map[string]string
	MemoryMB  int64   // limit in MiB
	CPUCores  float64 // limit in cores, 0: unbounded
	CreatedAt time.Time
	ReadyAt   time.Time // zero until it first ran
	Ending    *Ending   // set once Stopped or Failed
	Restored  ID        // the snapshot it was made from; empty otherwise
	Metadata  map[string]any
}

// Clone returns a copy that shares no mutable memory with s but Metadata's
// nested values.
func (s *Sandbox) Clone() *Sandbox {
	c := *s
	c.Command = slices.Clone(s.Command)
	if s.Ending != nil {
		e := *s.Ending
		c.Ending = &e
	}
	return &c
}

// DeleteOptions says what Delete leaves.
type DeleteOptions struct {
	// Keep leaves the sandbox paused with all its state, so that Resume
	// wakes it (the wire's cleanup=false). Without it everything goes.
	Keep bool
}
