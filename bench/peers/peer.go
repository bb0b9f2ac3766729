// Package peers drives the things that the benchmark compares: sandboxes of
// ours through HTTP, gVisor without a daemon, Docker by its CLI and by its
// Python SDK, and bare processes. They all do the same work on the same
// image; what differs is what stands between. It measures nothing itself.
//
//	p := peers.New("docker-cli", lab)
//	if err := p.Open(ctx); err != nil { ... } // skip it, and say why
//	defer p.Close(cleanupCtx)
//	box, err := p.Create(ctx, lab.Python)
//	out, err := box.Exec(ctx, "echo", "hi")
package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
)

// Peer is one way to run commands. Its methods may be used by several
// goroutines once Open has returned.
type Peer interface {
	// Open makes ready whatever must be there once: engines, images, helper
	// processes. Its error says why the peer can't take part here.
	Open(ctx context.Context) error
	// Create makes a sandbox of an image that lives until it is deleted.
	Create(ctx context.Context, kind lab.Kind) (Box, error)
	// Close ends what Open has begun and removes sandboxes that are left.
	Close(ctx context.Context) error
}

// Box is one sandbox of a peer.
type Box interface {
	// Exec runs a command. A command that fails is no error.
	Exec(ctx context.Context, argv ...string) (Output, error)
	// Python runs code in a fresh interpreter of the image.
	Python(ctx context.Context, code string) (Output, error)
	// Delete removes the sandbox.
	Delete(ctx context.Context) error
}

// Output is what a command gave.
type Output struct {
	Stdout string
	Stderr string
	Code   int
}

// Boxless is a peer without sandboxes: creating one does nothing.
type Boxless interface{ Boxless() }

// Names of the peers, in the order in which tables show them.
var Names = []string{
	Bare, BareHTTP, Runsc, InProcess, DockerCLI, DockerSDK, OursGVisor, OursDocker,
}

// The names.
const (
	Bare       = "bare"          // fork and exec on the host
	BareHTTP   = "bare-http"     // the same behind an HTTP handler in this process
	Runsc      = "runsc"         // gVisor's own command line
	InProcess  = "gvisor-inproc" // our gVisor backend without a daemon and HTTP
	DockerCLI  = "docker-cli"    // docker run, docker exec, docker rm
	DockerSDK  = "docker-sdk"    // Docker's SDK for Python
	OursGVisor = "ours-gvisor"   // a daemon of ours through HTTP, gVisor
	OursDocker = "ours-docker"   // a daemon of ours through HTTP, Docker
)

// New returns the peer of a name.
func New(name string, l *lab.Lab) (Peer, error) {
	switch name {
	case Bare:
		return &bare{lab: l}, nil
	case BareHTTP:
		return &bareHTTP{bare: bare{lab: l}}, nil
	case Runsc:
		return &runsc{lab: l}, nil
	case InProcess:
		return &inProcess{lab: l}, nil
	case DockerCLI:
		return &dockerCLI{lab: l}, nil
	case DockerSDK:
		return &dockerSDK{lab: l}, nil
	case OursGVisor:
		return &ours{lab: l, backend: "gvisor"}, nil
	case OursDocker:
		return &ours{lab: l, backend: "docker"}, nil
	}
	return nil, fmt.Errorf("there is no peer %q; the peers are %s", name, strings.Join(Names, ", "))
}

// idle is the main command of every sandbox, and python what Python adds code to.
var (
	idle   = []string{"sleep", "3600"}
	python = []string{"python3", "-c"}
)

// memoryMB is the limit of every sandbox, in MiB: what our published clients
// ask for when they are not told otherwise.
const memoryMB = 512

// capture runs a program of the host and returns its output.
func capture(cmd *exec.Cmd) (Output, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		err = nil
	}
	if err != nil {
		return Output{}, fmt.Errorf("%s: %w: %s", cmd.Args[0], err, strings.TrimSpace(stderr.String()))
	}
	return Output{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}, nil
}

// must turns an exit code other than 0 into an error.
func must(o Output, err error) (Output, error) {
	if err == nil && o.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", o.Code, strings.TrimSpace(o.Stderr))
	}
	return o, err
}
