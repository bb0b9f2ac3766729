// Package docker makes sandboxes as containers of a Docker engine, from API
// 1.41 (engine 20.10) up, over its socket. With a runtime such as runsc the
// same code isolates them by gVisor.
//
// It does not pull images: it takes the engine's own, or loads what it is
// handed. It gives containers no network, and it never touches what carries
// no label of its owner.
//
//	b := docker.New(docker.Config{Owner: dataDirID, Logger: log})
//	if err := b.Probe(ctx); err != nil { ... } // no engine: flash.Unavailable
//	m, err := b.Create(ctx, backend.Spec{ID: id, Image: img, Args: []string{"sleep", "600"}})
package docker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Config says which engine to use and how.
type Config struct {
	// Name of the backend, such as "docker" or "docker/runsc". Empty: "docker",
	// or "docker/" and the runtime.
	Name string
	// Host is the engine's address, such as unix:///run/docker.sock or
	// tcp://host:2376. Empty: DOCKER_HOST, else the engine's usual socket.
	// DOCKER_CERT_PATH, DOCKER_TLS_VERIFY and DOCKER_API_VERSION count as well.
	Host string
	// Runtime is an OCI runtime the engine knows. Empty: its default.
	Runtime string
	// Owner tells the containers of one daemon from those of others on the same
	// engine: List and Attach see only what has the same Owner and Name.
	Owner  string
	Logger *slog.Logger // nil: discarded
}

// Backend is a Docker engine.
type Backend struct {
	cfg    Config
	log    *slog.Logger
	engine *engine
	loads  flights
	hub    *hub
	doomed doomed // containers

	doomedImages doomed // failed snapshots

	mu   sync.Mutex
	info *system.Info // what the last good Probe found
	// noInit is set when the engine turns out to have no docker-init.
	noInit bool
	// commits says whether a commit sees what sandboxes write; nil: not known.
	commits *bool
}

var (
	_ backend.Backend     = (*Backend)(nil)
	_ backend.Restorer    = (*Backend)(nil)
	_ backend.ImageFinder = (*Backend)(nil)
	_ backend.Machine     = (*Machine)(nil)
	_ backend.Execer      = (*Machine)(nil)
	_ backend.Pauser      = (*Machine)(nil)
	_ backend.Snapshotter = (*Machine)(nil)
	_ backend.StatsReader = (*Machine)(nil)
)

// New returns a Backend. It does no I/O.
func New(cfg Config) *Backend {
	if cfg.Name == "" {
		cfg.Name = "docker"
		if cfg.Runtime != "" {
			cfg.Name += "/" + cfg.Runtime
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Backend{cfg: cfg, log: cfg.Logger.With("backend", cfg.Name)}
	b.engine = newEngine(cfg.Host, b.log)
	b.hub = newHub(b)
	return b
}

// gVisor reports whether the runtime is gVisor's, by its usual name.
func (b *Backend) gVisor() bool { return strings.HasPrefix(b.cfg.Runtime, "runsc") }

// Info implements backend.Backend.
func (b *Backend) Info() backend.Info {
	info := backend.Info{
		Name: b.cfg.Name, Isolation: "container", Sample: (*Machine)(nil),
		MinMemory: 6 << 20, // the engine refuses less
		Facts:     map[string]string{},
		Notes: []string{
			"There is no network but loopback; net_rx_bytes and net_tx_bytes stay 0.",
			"Snapshots hold the file system, without volumes and tmpfs; memory and processes are not in them.",
		},
	}
	if b.gVisor() {
		info.Isolation = "userspace-kernel"
		info.MinMemory = 64 << 20
		info.Notes = append(info.Notes,
			"The limit of processes holds for each user inside, as a ulimit: gVisor's own threads leave the engine's pids limit no meaning but that of a backstop.",
			"Snapshots need the runtime to be registered with --overlay2=none.",
			"Metrics include gVisor itself, pids_current counts its threads, and all are 0 where the runtime is told to ignore cgroups.")
	}
	host, local := b.engine.where()
	info.Facts["host"] = host
	if !local || b.gVisor() {
		info.Notes = append(info.Notes, "A command is killed at its deadline by a helper process inside the sandbox, which needs sh and grep in the image.")
	}
	if !local {
		info.Notes = append(info.Notes, "Metrics are read through the engine, which takes it up to a second.")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.info != nil {
		info.Version = b.info.ServerVersion
		maps.Copy(info.Facts, map[string]string{
			"api": b.engine.version(), "runtime": b.runtimeName(), "storage": b.info.Driver,
			"cgroup": b.info.CgroupVersion, "local": strconv.FormatBool(local), "kernel": b.info.KernelVersion,
		})
		if b.noInit {
			info.Notes = append(info.Notes, "The engine has no docker-init: a sandbox's command is process 1 and must reap orphans itself.")
		}
	}
	return info
}

func (b *Backend) runtimeName() string {
	if b.cfg.Runtime != "" {
		return b.cfg.Runtime
	}
	return b.info.DefaultRuntime
}

// Probe implements backend.Backend.
func (b *Backend) Probe(ctx context.Context) error {
	if err := b.engine.reconnect(ctx); err != nil {
		return err
	}
	info, err := call(ctx, b.engine, opInfo, func(ctx context.Context, c *client.Client) (client.SystemInfoResult, error) {
		return c.Info(ctx, client.InfoOptions{})
	})
	if err != nil {
		return asUnavailable("ask the Docker engine what it can do", err)
	}
	i := info.Info
	if i.OSType != "" && i.OSType != "linux" {
		return flash.Errorf(flash.Unavailable, "the Docker engine runs %s containers; Linux ones are needed", i.OSType)
	}
	if _, ok := i.Runtimes[b.cfg.Runtime]; b.cfg.Runtime != "" && !ok {
		return flash.Errorf(flash.Unavailable, "the Docker engine has no runtime %q; it has %s", b.cfg.Runtime, runtimes(i)).
			WithRemediation("register it with the engine: dockerd --add-runtime %s=/path/to/%[1]s", b.cfg.Runtime)
	}
	b.mu.Lock()
	b.info = &i
	b.noInit = b.noInit || i.InitBinary == ""
	b.mu.Unlock()
	b.sweep(ctx)
	return nil
}

func runtimes(i system.Info) string {
	names := slices.Sorted(maps.Keys(i.Runtimes))
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// cpus is the engine's number of processors, 0 when not known.
func (b *Backend) cpus() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.info == nil {
		return 0
	}
	return b.info.NCPU
}

// Close implements backend.Backend. Machines go on running.
func (b *Backend) Close() error {
	b.hub.close()
	b.engine.close()
	return nil
}

// detached returns a context for cleaning up, which outlives ctx by d.
func detached(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}

func wrap(doing string, err error) error { return fmt.Errorf("docker: %s: %w", doing, err) }
