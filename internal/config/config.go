// Package config reads the daemon's settings. It knows their names, defaults,
// ranges and where each value came from; it starts nothing and opens nothing
// but the settings file.
//
// Order, later ones win: defaults, the settings file (TOML), FSB_* variables,
// flags. Without any of them the daemon starts.
//
//	res, err := config.Load(os.Args[1:], os.Environ(), os.Stderr)
//	if errors.Is(err, flag.ErrHelp) { return 0 }
//	srv.Listen(res.Config.HTTPAddr)
package config

import (
	"log/slog"
	"path/filepath"
	"strings"
	"time"
)

// Config holds all settings. The comments are the reference page: run the
// package's tests with -update after changing one.
type Config struct {
	// Address the REST API listens on, as host:port. An empty host listens on
	// all addresses, port 0 takes a free one. Both addresses serve the same
	// routes, REST and gRPC; there are two because published clients have two
	// default ports.
	HTTPAddr string `toml:"http_addr" env:"FSB_HTTP_ADDR"`
	// Address gRPC clients expect, as host:port.
	GRPCAddr string `toml:"grpc_addr" env:"FSB_GRPC_ADDR"`
	// Path prefixes that are accepted in front of every route, such as
	// /v1/service/sandbox. Requests without a prefix work as well.
	BasePath []string `toml:"base_path" env:"FSB_BASE_PATH"`
	// Absolute directory for everything that is kept: records, images,
	// snapshots, files of running sandboxes. It must be empty or fsbd's own,
	// and only one fsbd can use it at a time. When fsbd does not run as root the default is flash-sandbox below
	// $XDG_DATA_HOME or ~/.local/share.
	DataDir string `toml:"data_dir" env:"FSB_DATA_DIR"`

	// Docker engine to use, as unix:///path or tcp://host:port. Empty: what
	// DOCKER_HOST and the other DOCKER_* variables say, else the usual socket.
	// off: no Docker backend.
	DockerHost string `toml:"docker_host" env:"FSB_DOCKER_HOST"`
	// Runtimes of the Docker engine that become backends of their own: runsc
	// gives docker/runsc. The engine must have them configured.
	DockerRuntimes []string `toml:"docker_runtimes" env:"FSB_DOCKER_RUNTIMES"`

	// Absolute directories below which the image references oci:DIR,
	// oci-archive:FILE and docker-archive:FILE may point. Without any, images
	// come from registries only.
	ImageDirs []string `toml:"image_dirs" env:"FSB_IMAGE_DIRS"`
	// Mirrors that are asked first, as registry=URL, such as
	// docker.io=http://127.0.0.1:5000. A URL alone is a mirror of docker.io.
	RegistryMirrors []string `toml:"registry_mirrors" env:"FSB_REGISTRY_MIRRORS"`
	// Registries, as host or host:port, that are spoken to over plain HTTP or
	// with certificates nobody vouches for. Loopback addresses always may.
	InsecureRegistries []string `toml:"insecure_registries" env:"FSB_INSECURE_REGISTRIES"`
	// Disk space for unpacked images. Beyond it, images that no sandbox and
	// no snapshot needs go, least recently used first. 0: no limit.
	ImageDiskBudget Bytes `toml:"image_disk_budget" env:"FSB_IMAGE_DISK_BUDGET"`

	// Most that is kept of each of stdout and stderr of one exec; beyond it
	// the middle is cut out, and the reply says so. From 4KiB to 1GiB.
	OutputLimit Bytes `toml:"output_limit" env:"FSB_OUTPUT_LIMIT"`
	// Memory limit in MiB of a sandbox that asks for none.
	DefaultMemoryMB int64 `toml:"default_memory_mb" env:"FSB_DEFAULT_MEMORY_MB"`
	// Most processes and threads in one sandbox. 0: no limit.
	PidsLimit int64 `toml:"pids_limit" env:"FSB_PIDS_LIMIT"`

	// Least severe log lines that are written: debug, info, warn or error.
	LogLevel slog.Level `toml:"log_level" env:"FSB_LOG_LEVEL"`
	// How log lines look: text or json.
	LogFormat string `toml:"log_format" env:"FSB_LOG_FORMAT"`
	// How long requests that are under way may take after SIGTERM. Then they
	// are answered as interrupted and their commands killed, which may take
	// another 20 seconds. Sandboxes go on running in any case.
	DrainTimeout Duration `toml:"drain_timeout" env:"FSB_DRAIN_TIMEOUT"`
}

// rootDataDir is the default of DataDir for root.
const rootDataDir = "/var/lib/flash-sandbox"

// Default returns the settings of a daemon that is given none. uid is the
// effective user id; getenv reads the variables that name the user's
// directories.
func Default(uid int, getenv func(string) string) Config {
	return Config{
		HTTPAddr:        "127.0.0.1:8080",
		GRPCAddr:        "127.0.0.1:50051",
		DataDir:         defaultDataDir(uid, getenv),
		ImageDiskBudget: 20 << 30,
		OutputLimit:     8 << 20,
		DefaultMemoryMB: 512,
		PidsLimit:       1024,
		LogLevel:        slog.LevelInfo,
		LogFormat:       "text",
		DrainTimeout:    Duration{10 * time.Second},
	}
}

// defaultDataDir is empty where no directory of the user is known, which
// Validate then complains about.
func defaultDataDir(uid int, getenv func(string) string) string {
	if uid == 0 {
		return rootDataDir
	}
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "flash-sandbox")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "flash-sandbox")
	}
	return ""
}

// normalize brings values that may be spelled in several ways to one.
func (c *Config) normalize() {
	for _, list := range []*[]string{&c.BasePath, &c.DockerRuntimes, &c.ImageDirs, &c.RegistryMirrors, &c.InsecureRegistries} {
		var out []string
		for _, s := range *list {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
		*list = out
	}
	var prefixes []string
	for _, p := range c.BasePath {
		if p = strings.Trim(p, "/"); p != "" {
			prefixes = append(prefixes, "/"+p)
		}
	}
	c.BasePath = prefixes
	for i, dir := range c.ImageDirs {
		c.ImageDirs[i] = filepath.Clean(dir)
	}
	if c.DataDir != "" {
		c.DataDir = filepath.Clean(c.DataDir)
	}
	c.DockerHost = strings.TrimSpace(c.DockerHost)
}
