package manager

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// defaultPath is what a sandbox gets whose image sets no PATH, as Docker does.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// undo is a stack of what must be taken back when a later step fails.
type undo []func(context.Context)

func (u *undo) push(f func(context.Context)) { *u = append(*u, f) }

// run takes back in reverse order, with time of its own since the request's
// may be over.
func (u *undo) run(ctx context.Context, d time.Duration) {
	ctx, cancel := detached(ctx, d)
	defer cancel()
	for _, f := range slices.Backward(*u) {
		f(ctx)
	}
}

// Create implements flash.Service.
func (m *Manager) Create(ctx context.Context, o flash.CreateOptions) (_ *flash.Sandbox, err error) {
	began := time.Now()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	snap, err := m.snaps.forRestore(&o, m.o.SnapshotDir)
	if err != nil {
		return nil, err
	}
	b, err := m.pick(ctx, o.Type)
	if err != nil {
		return nil, err
	}
	if (o.KernelImage != "" || o.InitrdPath != "") && b.Info().Isolation != "microvm" {
		return nil, flash.Errorf(flash.Invalid, "kernel_image, initrd_path: the %s backend boots no kernel of yours; leave them out", b.name)
	}
	rec, err := m.newRecord(o, b, snap)
	if err != nil {
		return nil, err
	}

	e := newEntry(rec, b)
	_ = e.take(ctx) // nobody else has it yet
	defer e.release()
	ctx, e.abort = context.WithCancel(ctx)
	defer e.abort()
	if !m.table.add(e) {
		return nil, flash.Errorf(flash.Exists, "id: %s is taken", e.id)
	}
	var back undo
	defer func() {
		if err == nil {
			return
		}
		back.run(ctx, m.o.DestroyTimeout)
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
			err = flash.Errorf(flash.Canceled, "the sandbox was given up while it was being created").WithCause(err)
		}
	}()
	back.push(func(context.Context) { m.table.remove(e) })

	// The intent is stored before any effect: whatever a crash leaves behind
	// is then recognised as half-made.
	if err := m.o.Store.InsertSandbox(ctx, rec); err != nil {
		return nil, err
	}
	back.push(func(ctx context.Context) { m.forget(ctx, e, "") })

	img, lease, err := m.image(ctx, b, rec, snap)
	if err != nil {
		return nil, err
	}
	if lease != nil {
		back.push(func(context.Context) { lease.Release() })
	}
	spec, err := m.spec(rec, img, &o, snap)
	if err != nil {
		return nil, err
	}

	var mc backend.Machine
	way := "cold"
	if snap == nil {
		mc, err = b.Create(ctx, spec)
	} else {
		way = "restored"
		restorer, ok := backend.As[backend.Restorer](b)
		if !ok {
			return nil, flash.Errorf(flash.Unsupported, "snapshot_path: the %s backend can't restore", b.name)
		}
		mc, err = restorer.Restore(ctx, spec, snap.Dir, snap.Saved)
	}
	if err != nil {
		return nil, err
	}
	back.push(func(ctx context.Context) {
		if err := mc.Destroy(ctx); err != nil {
			m.log.Error("a sandbox that failed to start could not be removed", "sandbox", e.id, "err", err)
			m.orphan(b, mc.Handle())
		}
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	e.mu.Lock()
	e.machine, e.lease = mc, lease
	e.mu.Unlock()
	h := mc.Handle()
	err = m.update(ctx, e, func(r *store.Sandbox) {
		r.State, r.ReadyAt, r.Handle = flash.Running, time.Now(), &h
		r.Digest, r.ImageConfig = img.Digest(), img.Config()
		r.Args, r.FullEnv, r.Dir, r.User = spec.Args, spec.Env, spec.Dir, spec.User
	})
	if err != nil {
		return nil, err
	}
	m.watch(e)
	m.metrics.created(b.name, way, began)
	return e.view.Load(), nil
}

// newRecord returns the record of a sandbox about to be made.
func (m *Manager) newRecord(o flash.CreateOptions, b *managedBackend, snap *store.Snapshot) (*store.Sandbox, error) {
	rec := &store.Sandbox{Sandbox: flash.Sandbox{
		ID: o.ID, State: flash.Creating, Backend: b.name, Image: o.Image, Command: o.Command, Env: o.Env,
		MemoryMB: o.MemoryMB, CPUCores: o.CPUCores, CreatedAt: time.Now(), Metadata: o.Metadata,
	}}
	if rec.ID == "" {
		rec.ID = flash.NewSandboxID()
	}
	if rec.MemoryMB == 0 {
		rec.MemoryMB = m.o.DefaultMemoryMB
	}
	if snap != nil {
		if snap.Backend != b.name {
			return nil, flash.Errorf(flash.Invalid, "type: the snapshot was taken on %s and can't be restored on %s", snap.Backend, b.name)
		}
		src := snap.Sandbox
		rec.Image, rec.Env, rec.Restored = src.Image, src.Env, snap.ID
		if len(rec.Command) == 0 {
			rec.Command = src.Command
		}
	}
	if least := b.Info().MinMemory; rec.MemoryMB<<20 < least {
		return nil, flash.Errorf(flash.Invalid, "memory_mb: is %d, the %s backend needs at least %d", rec.MemoryMB, b.name, (least+1<<20-1)>>20)
	}
	return rec, nil
}

// image gets the image of rec. The lease is nil where the backend keeps it.
func (m *Manager) image(ctx context.Context, b *managedBackend, rec *store.Sandbox, snap *store.Snapshot) (backend.Image, Lease, error) {
	if snap != nil && !snap.Memory {
		// The saved file system is all there is to restore; the image may
		// have gone since.
		src := snap.Sandbox
		return recordedImage{src.Image, src.Digest, src.ImageConfig}, nil, nil
	}
	if finder, ok := backend.As[backend.ImageFinder](b); ok && !isFile(rec.Image) {
		img, found, err := finder.FindImage(ctx, rec.Image)
		if err != nil {
			return nil, nil, err
		}
		if found {
			return img, nil, nil
		}
	}
	if snap != nil {
		// Memory refers to the very files it was saved with: that image, not
		// what its tag points at today.
		if l, err := m.o.Images.AcquireDigest(ctx, snap.Sandbox.Digest); err == nil {
			return l, l, nil
		}
	}
	l, err := m.o.Images.Acquire(ctx, rec.Image)
	if err != nil {
		return nil, nil, err
	}
	if snap != nil && l.Digest() != snap.Sandbox.Digest {
		l.Release()
		return nil, nil, flash.Errorf(flash.Conflict, "snapshot_path: the snapshot needs image %s@%s, which is no longer cached, and the registry now serves %s",
			rec.Image, snap.Sandbox.Digest, l.Digest())
	}
	return l, l, nil
}

// recordedImage is an image of which only the record is needed.
type recordedImage struct {
	ref, digest string
	config      backend.ImageConfig
}

func (i recordedImage) Reference() string           { return i.ref }
func (i recordedImage) Digest() string              { return i.digest }
func (i recordedImage) Config() backend.ImageConfig { return i.config }

// isFile reports whether ref names a file or folder rather than a registry's image.
func isFile(ref string) bool {
	transport, _, ok := strings.Cut(ref, ":")
	return ok && slices.Contains([]string{"oci", "oci-archive", "docker-archive"}, transport)
}

// spec resolves what depends on the image, so that it is the same everywhere.
func (m *Manager) spec(rec *store.Sandbox, img backend.Image, o *flash.CreateOptions, snap *store.Snapshot) (backend.Spec, error) {
	cfg := img.Config()
	s := backend.Spec{
		ID: rec.ID, Image: img, Hostname: hostname(rec.ID), User: cfg.User, Dir: cfg.WorkingDir,
		MemoryBytes: rec.MemoryMB << 20, CPUs: rec.CPUCores, Pids: m.o.PidsLimit,
		Env: environment(cfg.Env, o.Env),
	}
	s.Dir = path.Join("/", s.Dir) // an image may name it without the slash
	command := o.Command
	if snap != nil {
		src := snap.Sandbox
		s.Env, s.Dir, s.User = src.FullEnv, src.Dir, src.User
		if len(command) == 0 || snap.Memory {
			s.Args = src.Args
			return s, nil
		}
	}
	if len(command) == 0 {
		command = cfg.Cmd
	}
	s.Args = slices.Concat(cfg.Entrypoint, command)
	if len(s.Args) == 0 || s.Args[0] == "" {
		return s, flash.Errorf(flash.Invalid, "command: is empty and image %s names none", rec.Image).
			WithRemediation("give a command that stays, such as [\"sleep\", \"infinity\"]")
	}
	return s, nil
}

// environment merges variables, later ones over earlier ones, and makes sure
// of a PATH. Its order is stable: the image's, then added ones by name.
func environment(image []string, added map[string]string) []string {
	env := make([]string, 0, len(image)+len(added)+1)
	havePath := false
	for _, kv := range image {
		k, _, _ := strings.Cut(kv, "=")
		if _, over := added[k]; over || k == "" {
			continue
		}
		havePath = havePath || k == "PATH"
		env = append(env, kv)
	}
	names := make([]string, 0, len(added))
	for k := range added {
		names = append(names, k)
		havePath = havePath || k == "PATH"
	}
	slices.Sort(names)
	for _, k := range names {
		env = append(env, k+"="+added[k])
	}
	if !havePath {
		env = append(env, defaultPath)
	}
	return env
}

// hostname makes a host name of an id: at most 63 of [a-z0-9-].
func hostname(id flash.ID) string {
	return strings.Trim(strings.ReplaceAll(strings.ToLower(string(id)), "_", "-"), "-")
}
