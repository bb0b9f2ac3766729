package docker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Labels that mark what is ours.
const (
	labelID       = "flash-sandbox.id"
	labelOwner    = "flash-sandbox.owner"
	labelBackend  = "flash-sandbox.backend"
	labelRestored = "flash-sandbox.restored-from" // the committed image a container was made from
	labelSnapshot = "flash-sandbox.snapshot"      // on committed images
	labelAttempt  = "flash-sandbox.attempt"       // tells one create of a sandbox from another
)

// capabilities a sandbox's processes may hold: what package managers and
// servers need inside, and nothing that reaches out. MKNOD, NET_RAW, SETPCAP,
// SETFCAP and AUDIT_WRITE of the engine's default are left out.
var capabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "NET_BIND_SERVICE", "SYS_CHROOT",
}

// runscPids is how many threads gVisor's sentry and gofer may take for
// themselves, on top of the processes asked for.
const runscPids = 512

// runscThreads is more than the threads gVisor takes for a process inside.
const runscThreads = 6

// cleanupGrace is how long Create stays after its caller has left, to see that
// nothing is left behind. Past it the clean-up goes on in the background.
const cleanupGrace = 10 * time.Second

// Create implements backend.Backend.
func (b *Backend) Create(ctx context.Context, s backend.Spec) (backend.Machine, error) {
	if err := b.check(&s); err != nil {
		return nil, err
	}
	ref, err := b.ensureImage(ctx, s.Image)
	if err != nil {
		return nil, err
	}
	m, err := b.create(ctx, &s, ref, "")
	if err != nil && ctx.Err() == nil && isNotFound(err) {
		// The engine's image was removed between the look and the create.
		if ref, err = b.ensureImage(ctx, s.Image); err != nil {
			return nil, err
		}
		m, err = b.create(ctx, &s, ref, "")
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (b *Backend) check(s *backend.Spec) error {
	if len(s.Args) == 0 || s.Args[0] == "" {
		return flash.Errorf(flash.Invalid, "command: is empty and the image has none of its own")
	}
	return checkText(s.Args, s.Env, s.Dir, s.User)
}

// checkText refuses what the engine's JSON can't carry, which it would change
// without a word.
func checkText(args, env []string, dir, user string) error {
	for i, a := range args {
		if !utf8.ValidString(a) {
			return flash.Errorf(flash.Invalid, "command: element %d is not UTF-8, which a Docker engine can't take", i)
		}
	}
	for _, kv := range env {
		if !utf8.ValidString(kv) {
			name, _, _ := strings.Cut(kv, "=")
			return flash.Errorf(flash.Invalid, "env: the value of %q is not UTF-8, which a Docker engine can't take", name)
		}
	}
	if !utf8.ValidString(dir) || !utf8.ValidString(user) {
		return flash.Errorf(flash.Invalid, "working directory or user: is not UTF-8, which a Docker engine can't take")
	}
	return nil
}

// create makes the container and starts it. The work runs apart from ctx, so
// that the engine is never left half-way through a call whose outcome nobody
// waits for: a cancelled create that the engine finishes later would leak.
func (b *Backend) create(ctx context.Context, s *backend.Spec, ref, restored string) (*Machine, error) {
	type outcome struct {
		m   *Machine
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		m, err := b.make(ctx, s, ref, restored)
		done <- outcome{m, err}
	}()
	select {
	case o := <-done:
		return o.m, o.err
	case <-ctx.Done():
	}
	clean := make(chan struct{})
	go func() {
		defer close(clean)
		if o := <-done; o.err == nil { // made just before its caller left
			b.abandon(ctx, o.m)
		}
	}()
	select {
	case <-clean:
	case <-time.After(cleanupGrace):
		b.log.Warn("the Docker engine is slow to give up a container whose caller has left", "sandbox", s.ID)
	}
	return nil, ctx.Err()
}

// errNoInit says that a container asked for a docker-init the engine has not.
var errNoInit = errors.New("the engine has no docker-init")

// make is create's work. When it fails, or ctx has ended at its end, the
// container is gone or on the list of those to be removed.
func (b *Backend) make(ctx context.Context, s *backend.Spec, ref, restored string) (*Machine, error) {
	m, err := b.attempt(ctx, s, ref, restored)
	if errors.Is(err, errNoInit) {
		b.mu.Lock()
		b.noInit = true
		b.mu.Unlock()
		m, err = b.attempt(ctx, s, ref, restored)
	}
	return m, err
}

func (b *Backend) attempt(ctx context.Context, s *backend.Spec, ref, restored string) (m *Machine, err error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	apart := context.WithoutCancel(ctx)
	config, host := b.containerConfig(s, ref, restored)
	attempt := rand.Text()
	config.Labels[labelAttempt] = attempt
	cid, err := b.createContainer(apart, s.ID, config, host)
	if err != nil {
		if isUnavailable(err) {
			b.doomed.add(attempt, b.containerName(s.ID)) // the engine may yet make it
		}
		if isNotFound(err) {
			return nil, err
		}
		return nil, createError(s.ID, err)
	}
	made := &Machine{b: b, id: s.ID, cid: cid, attempt: attempt, restored: restored, born: time.Now()}
	defer func() {
		if err == nil && ctx.Err() != nil {
			m, err = nil, ctx.Err()
		}
		if err != nil {
			b.abandon(ctx, made)
		}
	}()
	early := *host.Init && (b.gVisor() || !b.engine.isLocal())
	if early {
		// Past the start nothing but the exit code would tell.
		if err := b.findProgram(apart, cid, s); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	err = do(apart, b.engine, opStart, func(ctx context.Context, c *client.Client) error {
		_, err := c.ContainerStart(ctx, cid, client.ContainerStartOptions{})
		return err
	})
	if err != nil && initMissing(err) && *host.Init {
		return nil, errNoInit
	}
	if err != nil {
		return nil, startError(s.Args, s.User, s.Dir, err)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if *host.Init && !early {
		if err := b.awaitProgram(apart, made, s); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// createContainer returns the engine's id of a new container. Where an earlier
// attempt, given up by us, has come into being after all, it makes room.
func (b *Backend) createContainer(ctx context.Context, id flash.ID, config *container.Config, host *container.HostConfig) (string, error) {
	name := b.containerName(id)
	create := func() (client.ContainerCreateResult, error) {
		return call(ctx, b.engine, opCreate, func(ctx context.Context, c *client.Client) (client.ContainerCreateResult, error) {
			return c.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: config, HostConfig: host})
		})
	}
	made, err := create()
	if nameTaken(err) && b.doomed.has(name) {
		b.sweepContainers(ctx)
		made, err = create()
	}
	return made.ID, err
}

// abandon removes a container that is not to be, or sees that it will be.
func (b *Backend) abandon(ctx context.Context, m *Machine) {
	clean, cancel := detached(ctx, opRemove.timeout)
	defer cancel()
	if err := m.remove(clean); err != nil {
		b.doomed.add(m.attempt, b.containerName(m.id))
		b.log.Warn("a container could not be removed yet", "sandbox", m.id, "err", err)
	}
}

func (b *Backend) withoutInit() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.noInit
}

// containerName is unique for an owner, backend and sandbox, so that the
// engine itself refuses a second container of one sandbox.
func (b *Backend) containerName(id flash.ID) string {
	sum := sha256.Sum256([]byte(b.cfg.Owner + "\x00" + b.cfg.Name))
	return "flash-sandbox-" + hex.EncodeToString(sum[:4]) + "-" + string(id)
}

func (b *Backend) labels(id flash.ID) map[string]string {
	return map[string]string{labelID: string(id), labelOwner: b.cfg.Owner, labelBackend: b.cfg.Name}
}

// containerConfig says everything explicitly, so that nothing of the image or
// of the engine's defaults decides.
func (b *Backend) containerConfig(s *backend.Spec, ref, restored string) (*container.Config, *container.HostConfig) {
	labels := b.labels(s.ID)
	if restored != "" {
		labels[labelRestored] = restored
	}
	config := &container.Config{
		Image: ref, Entrypoint: s.Args[:1:1], Cmd: s.Args[1:], Env: s.Env, WorkingDir: s.Dir, User: s.User,
		Hostname: s.Hostname, Labels: labels, NetworkDisabled: true,
		// A shell or interpreter as the command waits on an open, silent stdin.
		OpenStdin:   true,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}
	if len(s.Args) == 1 {
		config.Cmd = []string{}
	}
	withInit := !b.withoutInit()
	host := &container.HostConfig{
		Runtime: b.cfg.Runtime, NetworkMode: "none", Init: &withInit,
		LogConfig:     container.LogConfig{Type: "none"},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		CapDrop:       []string{"ALL"}, CapAdd: capabilities,
		SecurityOpt: []string{"no-new-privileges"},
	}
	if s.MemoryBytes > 0 {
		host.Memory, host.MemorySwap = s.MemoryBytes, s.MemoryBytes
	}
	if n := b.cpus(); s.CPUs > 0 {
		cpus := s.CPUs
		if n > 0 {
			cpus = min(cpus, float64(n)) // the engine refuses more than it has
		}
		host.NanoCPUs = int64(math.Round(cpus * 1e9))
	}
	if s.Pids > 0 {
		pids := s.Pids
		if withInit {
			pids++ // docker-init is one
		}
		if b.gVisor() {
			// The engine's limit counts threads of the host, of which gVisor
			// takes several for each process inside; running out of them hurts
			// gVisor itself. Inside, gVisor holds each user to the ulimit.
			host.Ulimits = []*container.Ulimit{{Name: "nproc", Soft: pids, Hard: pids}}
			pids = pids*runscThreads + runscPids
		}
		host.PidsLimit = &pids
	}
	return config, host
}

// do is call for calls without a result.
func do(ctx context.Context, e *engine, o op, fn func(context.Context, *client.Client) error) error {
	_, err := call(ctx, e, o, func(ctx context.Context, c *client.Client) (struct{}, error) {
		return struct{}{}, fn(ctx, c)
	})
	return err
}
