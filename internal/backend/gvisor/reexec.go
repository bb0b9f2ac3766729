package gvisor

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/cli/maincli"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/container"
	"gvisor.dev/gvisor/runsc/specutils"
)

// launcherName is argv[0] of the process that starts a sandbox.
const launcherName = "fsb-gvisor"

// containerID is the id that every sandbox has within gVisor. Each sandbox has
// a runsc root directory of its own, so ids need not differ; and since the
// paths of a sandbox's inner cgroups hold the id, a restored sandbox finds its
// own again.
const containerID = "sandbox"

// reexecable records that the program calls RunIfReexec, without which
// executing it again would run it as something else.
var reexecable atomic.Bool

// RunIfReexec becomes one of gVisor's processes, and never returns, if the
// program was executed as one. It must be the first call of main.
func RunIfReexec() {
	name := filepath.Base(os.Args[0])
	switch {
	case name == launcherName:
		os.Exit(launcherMain())
	case strings.HasPrefix(name, "runsc"), isUmounter(os.Args):
		maincli.Main()
		os.Exit(128)
	}
	reexecable.Store(true)
}

// isUmounter recognises the one process of gVisor that has no name of its own:
// the child that takes /proc away from a sentry.
func isUmounter(args []string) bool {
	return len(args) == 4 && args[0] == specutils.ExePath && args[1] == "umount" && strings.HasPrefix(args[2], "--sync-fd=")
}

// launchRequest is what a launcher reads on its stdin.
type launchRequest struct {
	Flags   []string // of runsc
	Bundle  string   // directory with the OCI spec, config.json
	Restore string   // directory with a saved state; "" for a fresh start
	Stdin   string   // FIFO that the main command has as stdin; removed once open
}

// launchReply is what a launcher writes to its stdout.
type launchReply struct {
	Error      string `json:",omitempty"`
	SandboxPID int
	GoferPID   int
}

// waitReply is what a launcher writes when asked for the sandbox's end.
type waitReply struct {
	Error  string `json:",omitempty"`
	Status uint32 // as of wait4
}

// launcherMain starts one sandbox and ends when its stdin does. The sandbox's
// processes are then nobody's children, so they live on when the daemon ends.
// Until then it can be asked, with a line, for the end of a sandbox that ended
// too soon for anybody else to see how.
func launcherMain() int {
	in := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	line, err := in.ReadBytes('\n')
	if err != nil {
		fmt.Fprintf(os.Stderr, "read launch request: %v\n", err)
		return 1
	}
	var req launchRequest
	if err := json.Unmarshal(line, &req); err != nil {
		fmt.Fprintf(os.Stderr, "read launch request: %v\n", err)
		return 1
	}
	// A daemon that dies must not be followed by sandboxes that nobody asked
	// for: what has been started by then is in the machine's cgroup.
	var launched atomic.Bool
	more := make(chan error, 1)
	go func() {
		_, err := in.ReadBytes('\n')
		if err != nil && !launched.Load() {
			os.Exit(1)
		}
		more <- err
	}()
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}})
	r, err := launch(req)
	if err != nil {
		r.Error = err.Error()
	}
	launched.Store(true)
	if err := out.Encode(r); err != nil {
		fmt.Fprintf(os.Stderr, "write launch reply: %v\n", err)
		return 1
	}
	if err := <-more; err != nil || r.SandboxPID == 0 {
		return 0
	}
	var w waitReply
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(r.SandboxPID, &ws, 0, nil); err != nil {
		w.Error = err.Error()
	}
	w.Status = uint32(ws)
	if err := out.Encode(w); err != nil {
		return 1
	}
	return 0
}

func launch(req launchRequest) (r launchReply, err error) {
	flags := flag.NewFlagSet(launcherName, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	config.RegisterFlags(flags)
	if err := flags.Parse(req.Flags); err != nil {
		return r, err
	}
	conf, err := config.NewFromFlags(flags)
	if err != nil {
		return r, err
	}
	// gVisor takes the main command's streams from these variables.
	if os.Stdin, err = os.OpenFile(req.Stdin, os.O_RDWR, 0); err != nil {
		return r, err
	}
	if err := os.Remove(req.Stdin); err != nil {
		return r, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return r, err
	}
	os.Stdout, os.Stderr = null, null

	spec, err := specutils.ReadSpec(req.Bundle, conf)
	if err != nil {
		return r, err
	}
	c, err := container.New(conf, container.Args{ID: containerID, Spec: spec, BundleDir: req.Bundle})
	if err != nil {
		return r, err
	}
	if req.Restore == "" {
		err = c.Start(conf)
	} else {
		err = c.Restore(conf, req.Restore, false, false, nil)
	}
	if err != nil {
		_ = c.Destroy() // the caller removes what is left
		return r, err
	}
	return launchReply{SandboxPID: c.SandboxPid(), GoferPID: c.GoferPid.Load()}, nil
}
