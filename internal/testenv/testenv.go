// Package testenv says what this host can do for tests, and finds what tests
// leave behind on it. It is for tests and for the scripts that run them; no
// product code imports it.
//
//	testenv.Require(t, testenv.Root, testenv.Docker)
//	before := testenv.Take(testenv.Options{Marks: []string{dir}})
//	...
//	testenv.Check(t, before)
package testenv

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Requirement is something a test needs of its host.
type Requirement string

// The requirements.
const (
	Root   Requirement = "root"   // uid 0 with the capability to mount and to make namespaces
	Docker Requirement = "docker" // a Docker engine that answers, see DockerHost
	GVisor Requirement = "gvisor" // what gVisor needs: root, Linux on amd64 or arm64
	Nginx  Requirement = "nginx"  // the nginx program
	Python Requirement = "python" // the python3 program
)

// RequireVar names the environment variable that turns skips into failures:
// a comma list of requirements, or "all".
const RequireVar = "FSB_TEST_REQUIRE"

// Require skips the test when the host lacks one of reqs, and fails it instead
// when FSB_TEST_REQUIRE lists that requirement.
func Require(t testing.TB, reqs ...Requirement) {
	t.Helper()
	for _, r := range reqs {
		err := r.Check(t.Context())
		if err == nil {
			continue
		}
		if required(r, os.Getenv(RequireVar)) {
			t.Fatalf("%s is required by %s, but %v", r, RequireVar, err)
		}
		t.Skipf("needs %s: %v", r, err)
	}
}

func required(r Requirement, list string) bool {
	names := strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' })
	return slices.Contains(names, string(r)) || slices.Contains(names, "all")
}

// Check says whether this host meets the requirement; the error says why not.
func (r Requirement) Check(ctx context.Context) error {
	switch r {
	case Root:
		return checkRoot()
	case GVisor:
		if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
			return fmt.Errorf("this is %s/%s", runtime.GOOS, runtime.GOARCH)
		}
		return checkRoot()
	case Docker:
		_, err := dockerGet(ctx, "/_ping")
		return err
	case Nginx:
		return checkProgram("nginx")
	case Python:
		return checkProgram("python3")
	}
	return fmt.Errorf("there is no requirement %q", string(r))
}

func checkProgram(name string) error {
	_, err := exec.LookPath(name)
	return err
}

func checkRoot() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("uid is %d", os.Geteuid())
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		var caps uint64
		if n, _ := fmt.Sscanf(line, "CapEff:\t%x", &caps); n == 1 {
			const sysAdmin = 21
			if caps&(1<<sysAdmin) == 0 {
				return fmt.Errorf("root lacks CAP_SYS_ADMIN here")
			}
		}
	}
	return nil
}

// DockerHost is the engine's address that tests use: FSB_DOCKER_HOST, else
// DOCKER_HOST, else the usual socket.
func DockerHost() string {
	for _, name := range []string{"FSB_DOCKER_HOST", "DOCKER_HOST"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return "unix:///var/run/docker.sock"
}

// dockerGet asks the engine, without a client library so that the leak check
// stays a small program.
func dockerGet(ctx context.Context, path string) ([]byte, error) {
	network, addr, ok := strings.Cut(DockerHost(), "://")
	if !ok {
		return nil, fmt.Errorf("%q is no engine address", DockerHost())
	}
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		},
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the engine answers %s", res.Status)
	}
	return body, nil
}
