package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/cgroup"
	"golang.org/x/sync/semaphore"
)

// machine is one sandbox.
type machine struct {
	b   *Backend
	id  flash.ID
	dir string
	rec record

	// act orders what changes the sandbox, see share and seize. Destroy waits
	// for nobody.
	act *semaphore.Weighted

	destroying  chan struct{} // closed when Destroy begins
	destroyOnce sync.Once

	ended    chan struct{} // closed when ending is set
	ending   flash.Ending
	endOnce  sync.Once
	unwatch  context.CancelFunc
	watching chan struct{} // closed when the watcher is gone; nil if there never was one
}

var (
	_ backend.Machine     = (*machine)(nil)
	_ backend.Execer      = (*machine)(nil)
	_ backend.Pauser      = (*machine)(nil)
	_ backend.Snapshotter = (*machine)(nil)
	_ backend.StatsReader = (*machine)(nil)
)

func newMachine(b *Backend, id flash.ID, r record) *machine {
	return &machine{
		b: b, id: id, dir: b.dir(id), rec: r, act: semaphore.NewWeighted(all),
		destroying: make(chan struct{}), ended: make(chan struct{}), unwatch: func() {},
	}
}

// all is the weight of an act that tolerates no other.
const all = 1 << 30

// share waits until nothing holds the machine alone, and keeps it so until
// release. The start of a process does that. The error is the context's.
func (m *machine) share(ctx context.Context) (release func(), err error) { return m.hold(ctx, 1) }

// seize waits until nobody shares or holds the machine, and holds it alone
// until release. Pause, resume and snapshot do that. The error is the
// context's.
func (m *machine) seize(ctx context.Context) (release func(), err error) { return m.hold(ctx, all) }

func (m *machine) hold(ctx context.Context, weight int64) (release func(), err error) {
	if err := m.act.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return func() { m.act.Release(weight) }, nil
}

// Handle finds the machine again.
func (m *machine) Handle() backend.Handle { return handle(m.id) }

// Status reads the machine's real state.
func (m *machine) Status(ctx context.Context) (backend.Status, error) {
	if m.hasEnded() {
		return backend.StatusEnded, nil
	}
	p := m.phase()
	if !p.settled() {
		release, err := m.seize(ctx)
		if err != nil {
			return "", err
		}
		p, err = m.settle(ctx)
		release()
		if err != nil {
			if m.hasEnded() {
				return backend.StatusEnded, nil
			}
			return "", err
		}
	}
	if p == phasePaused {
		return backend.StatusPaused, nil
	}
	return backend.StatusRunning, nil
}

// hasEnded reports whether the machine has ended or is about to, also before
// the watcher has noticed.
func (m *machine) hasEnded() bool {
	select {
	case <-m.ended:
		return true
	case <-m.destroying:
		return true
	default:
		return !m.rec.alive()
	}
}

// Wait blocks until the main command has ended.
func (m *machine) Wait(ctx context.Context) (flash.Ending, error) {
	select {
	case <-m.ended:
		return m.ending, nil
	default:
	}
	select {
	case <-m.ended:
		return m.ending, nil
	case <-ctx.Done():
		return flash.Ending{}, ctx.Err()
	}
}

// socket is the path of the sentry's control socket.
func (m *machine) socket() string {
	return filepath.Join(m.dir, runscDir, "runsc-"+containerID+".sock")
}

// call makes one call of the sentry.
func (m *machine) call(ctx context.Context, method string, arg, result any, files ...*os.File) error {
	return callOnce(ctx, m.socket(), method, arg, result, files...)
}

// cgroup returns the machine's group on the host.
func (m *machine) cgroup() (*cgroup.Group, error) { return cgroup.Open(m.rec.Cgroup) }

// conflict is the error for an act on a machine that has ended.
func (m *machine) conflict() error {
	return flash.Errorf(flash.Conflict, "sandbox %s has ended", m.id).
		WithRemediation("Create a new sandbox.")
}

// destroyTimeout bounds a removal: a killed process is gone in milliseconds,
// unless the kernel is busy freeing its memory.
const destroyTimeout = 30 * time.Second

// Destroy kills and removes everything of the machine.
func (m *machine) Destroy(ctx context.Context) error {
	m.destroyOnce.Do(func() { close(m.destroying) })
	m.unwatch()
	if m.watching != nil {
		<-m.watching
	}
	if err := m.remove(ctx); err != nil {
		return err
	}
	m.b.mu.Lock()
	if m.b.machines[m.id] == m {
		delete(m.b.machines, m.id)
	}
	m.b.forgetLeftover(m.id)
	m.b.mu.Unlock()
	m.end(destroyed())
	return nil
}

// destroyed is the end of a machine by Destroy.
func destroyed() flash.Ending {
	return flash.Ending{Cause: flash.CauseCancelled, ExitCode: 128 + int(syscall.SIGKILL), Message: "The sandbox was destroyed."}
}

// remove kills what is in the machine's cgroup and removes cgroup and
// directory, in this order: the directory is what List finds.
func (m *machine) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, destroyTimeout)
	defer cancel()
	// The sandbox process takes all others with it but the gofer. Killed by
	// its own number it frees the cgroup sooner than found by a search.
	if m.rec.alive() {
		_ = syscall.Kill(m.rec.SandboxPID, syscall.SIGKILL)
	}
	g, err := cgroup.Open(m.b.cgroupOf(m.id))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := g.Remove(ctx); err != nil {
			return fmt.Errorf("remove cgroup of %s: %w", m.id, err)
		}
	}
	m.reap()
	for {
		// Another process that watches the machine may be putting its end on
		// record at this moment.
		err := os.RemoveAll(m.dir)
		if !errors.Is(err, syscall.ENOTEMPTY) || ctx.Err() != nil {
			return err
		}
	}
}

// reap collects the sandbox's processes where they have become children of
// this one, which happens when this is the first process of its namespace.
func (m *machine) reap() {
	for _, pid := range []int{m.rec.SandboxPID, m.rec.GoferPID} {
		if pid > 0 {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}
