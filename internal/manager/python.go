package manager

import (
	"context"
	"runtime"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// interpreters are tried in this order.
var interpreters = []string{"python3", "python"}

// RunPython implements flash.Service.
func (m *Manager) RunPython(ctx context.Context, id flash.ID, o flash.PythonOptions) (*flash.ExecResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	e, err := m.table.find(id)
	if err != nil {
		return nil, err
	}
	try := interpreters
	if known := e.python.Load(); known != nil {
		try = []string{*known}
	}
	for _, python := range try {
		res, started, err := m.run(ctx, e, backend.ExecSpec{Args: []string{python, "-c", o.Code}}, o.Timeout)
		if err != nil {
			return nil, err
		}
		if started || res.Ending.ExitCode != 127 { // 127: no such program
			e.python.CompareAndSwap(nil, &python)
			return res, nil
		}
	}
	e.python.Store(nil) // the sandbox may yet install one
	return nil, flash.Errorf(flash.Unsupported, "image %s has no Python: neither python3 nor python is in its PATH", e.view.Load().Image).
		WithRemediation("use an image that has one, such as python:3.11-slim")
}

// probeScript prints what PlatformInfo tells, one "key=value" a line, with
// whatever tools the image has.
const probeScript = `echo "system=$(uname -s 2>/dev/null)"
echo "release=$(uname -r 2>/dev/null)"
echo "version=$(uname -v 2>/dev/null)"
echo "machine=$(uname -m 2>/dev/null)"
echo "hostname=$(hostname 2>/dev/null || cat /etc/hostname 2>/dev/null)"
. /etc/os-release 2>/dev/null
echo "os=$PRETTY_NAME"
echo "osname=$NAME"
echo "python=$( (python3 -V || python -V) 2>/dev/null)"
`

// probeTime is enough for a shell and an interpreter's start under load.
const probeTime = 20 * time.Second

// PlatformInfo implements flash.Service.
func (m *Manager) PlatformInfo(ctx context.Context, id flash.ID) (*flash.PlatformInfo, error) {
	e, err := m.table.find(id)
	if err != nil {
		return nil, err
	}
	res, _, err := m.run(ctx, e, backend.ExecSpec{Args: []string{"sh", "-c", probeScript}}, probeTime)
	if err != nil {
		return nil, err
	}
	sb := e.view.Load()
	info := &flash.PlatformInfo{
		SandboxID: string(id), Backend: sb.Backend, Isolation: e.backend.Info().Isolation,
		System: "Linux", Machine: machineName(), Hostname: hostname(id),
		Image: sb.Image, CPUCores: sb.CPUCores, MemoryMB: sb.MemoryMB,
	}
	// An image without a shell answers with nothing, and what is known from
	// outside stands.
	for line := range strings.Lines(string(res.Stdout)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.TrimSpace(v)
		if v == "" {
			continue
		}
		switch k {
		case "system":
			info.System = v
		case "release":
			info.Release = v
		case "version":
			info.Version = v
		case "machine":
			info.Machine = v
		case "hostname":
			info.Hostname = v
		case "os":
			info.OS = v
		case "osname":
			if info.OS == "" {
				info.OS = v
			}
		case "python":
			info.Python = strings.TrimPrefix(v, "Python ")
		}
	}
	return info, nil
}

func machineName() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}
