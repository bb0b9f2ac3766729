package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// Fault is one setting with a value that can't be used.
type Fault struct {
	Setting string // as its variable is called, such as "FSB_HTTP_ADDR"
	Problem string // goes on from the name: "is empty; ..."
}

func (f *Fault) Error() string { return f.Setting + ": " + f.Problem }

var (
	runtimeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	prefixPath  = regexp.MustCompile(`^(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+$`)
	hostPort    = regexp.MustCompile(`^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$`)
)

// Validate checks all settings, without I/O, and returns all faults joined:
// each is a *Fault.
func (c *Config) Validate() error {
	var faults []error
	fault := func(setting, format string, args ...any) {
		faults = append(faults, &Fault{setting, fmt.Sprintf(format, args...)})
	}

	checkAddr := func(setting, addr string) {
		if problem := addrProblem(addr); problem != "" {
			fault(setting, "%s", problem)
		}
	}
	checkAddr("FSB_HTTP_ADDR", c.HTTPAddr)
	checkAddr("FSB_GRPC_ADDR", c.GRPCAddr)
	if c.HTTPAddr == c.GRPCAddr && !strings.HasSuffix(c.HTTPAddr, ":0") {
		fault("FSB_GRPC_ADDR", "is the same as FSB_HTTP_ADDR, %q; each needs an address of its own", c.GRPCAddr)
	}
	for _, p := range c.BasePath {
		if !prefixPath.MatchString(p) || slices.Contains(strings.Split(p, "/"), "..") || slices.Contains(strings.Split(p, "/"), ".") {
			fault("FSB_BASE_PATH", "%q is not a path prefix; give one such as /v1/service/sandbox", p)
		}
	}

	switch {
	case c.DataDir == "":
		fault("FSB_DATA_DIR", "is empty, and no home directory is known to choose one; give an absolute directory")
	case !filepath.IsAbs(c.DataDir):
		fault("FSB_DATA_DIR", "%q is not an absolute directory", c.DataDir)
	case c.DataDir == "/":
		fault("FSB_DATA_DIR", "is the root directory; give one that fsbd may have to itself")
	}

	if problem := dockerHostProblem(c.DockerHost); problem != "" {
		fault("FSB_DOCKER_HOST", "%s", problem)
	}
	for i, r := range c.DockerRuntimes {
		switch {
		case !runtimeName.MatchString(r):
			fault("FSB_DOCKER_RUNTIMES", "%q is not the name of a runtime; give one as the engine's configuration spells it, such as runsc", r)
		case slices.Contains(c.DockerRuntimes[:i], r):
			fault("FSB_DOCKER_RUNTIMES", "%q is listed twice", r)
		}
	}

	for _, dir := range c.ImageDirs {
		if !filepath.IsAbs(dir) {
			fault("FSB_IMAGE_DIRS", "%q is not an absolute directory", dir)
		}
	}
	for _, m := range c.RegistryMirrors {
		if problem := mirrorProblem(m); problem != "" {
			fault("FSB_REGISTRY_MIRRORS", "%q %s; give registry=URL, such as docker.io=http://127.0.0.1:5000, or a URL", Redact(m), problem)
		}
	}
	for _, r := range c.InsecureRegistries {
		if !hostPort.MatchString(r) {
			fault("FSB_INSECURE_REGISTRIES", "%q is not host or host:port", r)
		}
	}
	if c.ImageDiskBudget < 0 {
		fault("FSB_IMAGE_DISK_BUDGET", "is negative; give a size such as 20GiB, or 0 for no limit")
	}

	if c.OutputLimit < 4<<10 || c.OutputLimit > 1<<30 {
		fault("FSB_OUTPUT_LIMIT", "is %s; give a size from 4KiB to 1GiB", c.OutputLimit)
	}
	if c.DefaultMemoryMB < 1 || c.DefaultMemoryMB > flash.MaxMemoryMB {
		fault("FSB_DEFAULT_MEMORY_MB", "is %d; give MiB from 1 to %d", c.DefaultMemoryMB, flash.MaxMemoryMB)
	}
	if c.PidsLimit < 0 {
		fault("FSB_PIDS_LIMIT", "is %d; give a positive number, or 0 for no limit", c.PidsLimit)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		fault("FSB_LOG_FORMAT", "is %q; give text or json", c.LogFormat)
	}
	if d := c.DrainTimeout.Duration; d < time.Millisecond || d > time.Hour {
		fault("FSB_DRAIN_TIMEOUT", "is %s; give a duration from 1ms to 1h", d)
	}
	return errors.Join(faults...)
}

func addrProblem(addr string) string {
	if addr == "" {
		return "is empty; give host:port"
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Sprintf("%q is not host:port, such as 127.0.0.1:8080 or [::1]:8080", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Sprintf("%q has no port number from 0 to 65535", addr)
	}
	return ""
}

func dockerHostProblem(host string) string {
	if host == "" || host == "off" {
		return ""
	}
	u, err := url.Parse(host)
	switch {
	case err != nil:
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
		return ""
	case u.Scheme == "tcp" && u.User == nil && u.Hostname() != "" && u.Port() != "":
		return ""
	}
	return fmt.Sprintf("%q is not unix:///path, tcp://host:port or off", Redact(host))
}

func mirrorProblem(m string) string {
	registry, target, named := strings.Cut(m, "=")
	if !named || strings.Contains(registry, "://") {
		registry, target = "docker.io", m
	}
	if !hostPort.MatchString(registry) {
		return "does not begin with a registry's name"
	}
	u, err := url.Parse(target)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "names no http or https URL"
	case u.User != nil:
		return "holds credentials, which belong into Docker's configuration file"
	case u.RawQuery != "" || u.Fragment != "":
		return "has a query or a fragment"
	}
	return ""
}
