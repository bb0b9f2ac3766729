package gvisor

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/boot"
)

// watch makes m known and begins to watch it. The channel is closed once the
// sentry has been asked how the main command ends, or can't be any more. l is
// the launcher of a machine that has just started, nil for others. The caller
// holds b.mu.
func (b *Backend) watch(m *machine, l *launcher) (asked <-chan struct{}) {
	ch := make(chan struct{})
	if e, ok := readEnding(m.dir); ok {
		m.end(e)
		close(ch)
		return ch
	}
	pidfd, err := openPidfd(&m.rec)
	if err != nil && l == nil {
		m.finish(m.lost())
		close(ch)
		return ch
	}
	ctx, cancel := context.WithCancel(b.running)
	m.unwatch, m.watching = cancel, make(chan struct{})
	b.machines[m.id] = m
	b.watchers.Add(1)
	go func() {
		defer b.watchers.Done()
		defer close(m.watching)
		defer cancel()
		e, ok := m.await(ctx, pidfd, l, ch)
		if pidfd != nil {
			_ = pidfd.Close()
		}
		if !ok {
			return
		}
		m.finish(e)
		b.mu.Lock()
		if b.machines[m.id] == m {
			delete(b.machines, m.id)
		}
		b.mu.Unlock()
	}()
	return ch
}

// await blocks until the sandbox process is gone and says how the main command
// ended; ok is false when ctx ended first. pidfd is nil when the process is
// gone already.
func (m *machine) await(ctx context.Context, pidfd *os.File, l *launcher, asked chan<- struct{}) (e flash.Ending, ok bool) {
	ws, err := m.ask(ctx, asked)
	if err != nil && l != nil && ctx.Err() == nil {
		// Too late for the sentry; its parent knows.
		if ws, err = l.status(ctx); err == nil {
			ws = shellStatus(ws)
		}
	}
	if pidfd != nil && !waitPidfd(ctx, pidfd) || ctx.Err() != nil {
		return flash.Ending{}, false
	}
	m.reap()
	switch {
	case m.oomKilled() && (err != nil || syscall.WaitStatus(ws).Signaled()):
		return m.oom(), true
	case err != nil && !exists(m.dir):
		return destroyed(), true
	case err != nil:
		return flash.Ending{
			Cause: flash.CauseSignal, ExitCode: 128 + int(syscall.SIGKILL),
			Message: "The sandbox's kernel was killed or crashed.",
		}, true
	}
	return exitOf(ws), true
}

// ask asks the sentry how the main command ends. It answers when that has
// ended, before it ends itself; no answer means that it did not live to give
// one.
func (m *machine) ask(ctx context.Context, asked chan<- struct{}) (ws uint32, err error) {
	defer func() {
		if asked != nil {
			close(asked)
		}
	}()
	c, err := dial(ctx, m.socket())
	if err != nil {
		return 0, err
	}
	defer c.close()
	cid := containerID
	if err := c.send(ctx, boot.ContMgrWait, &cid); err != nil {
		return 0, err
	}
	close(asked)
	asked = nil
	err = c.receive(ctx, boot.ContMgrWait, &ws)
	return ws, err
}

// shellStatus turns the status of a sentry's process, which exits as a shell
// would, into that of its command: 128+n stands for a death by signal n.
func shellStatus(ws uint32) uint32 {
	const lastSignal = 64
	w := syscall.WaitStatus(ws)
	if n := w.ExitStatus() - 128; w.Exited() && n > 0 && n <= lastSignal {
		return uint32(n)
	}
	return ws
}

// exitOf reads a wait status.
func exitOf(ws uint32) flash.Ending {
	w := syscall.WaitStatus(ws)
	if w.Signaled() {
		return flash.Ending{
			Cause: flash.CauseSignal, ExitCode: 128 + int(w.Signal()),
			Message: fmt.Sprintf("The command was ended by signal %d (%s).", w.Signal(), w.Signal()),
		}
	}
	return flash.Ending{
		Cause: flash.CauseExited, ExitCode: w.ExitStatus(),
		Message: fmt.Sprintf("The command ended with exit code %d.", w.ExitStatus()),
	}
}

// lost says how a machine ended that nobody watched then.
func (m *machine) lost() flash.Ending {
	if m.oomKilled() {
		return m.oom()
	}
	return flash.Ending{
		Cause: flash.CauseUnknown, ExitCode: -1,
		Message: "The sandbox ended while the daemon was not running.",
	}
}

func (m *machine) oom() flash.Ending {
	e := flash.Ending{Cause: flash.CauseOOM, ExitCode: 128 + int(syscall.SIGKILL)}
	e.Message = fmt.Sprintf("The sandbox was killed for passing its memory limit of %d MiB.", m.rec.MemoryBytes>>20)
	if m.rec.MemoryBytes == 0 {
		e.Message = "The sandbox was killed because the host had no more memory."
	}
	return e
}

func (m *machine) oomKilled() bool {
	g, err := m.cgroup()
	if err != nil {
		return false
	}
	n, err := g.OOMKills()
	return err == nil && n > 0
}

// finish puts an ending on record and makes it known.
func (m *machine) finish(e flash.Ending) {
	if err := writeJSON(m.dir, endingFile, e); err != nil && exists(m.dir) {
		m.b.log.Warn("how a sandbox ended could not be put on record", "sandbox", m.id, "err", err)
	}
	m.end(e)
}

func (m *machine) end(e flash.Ending) {
	m.endOnce.Do(func() {
		m.ending = e
		close(m.ended)
	})
}

// openPidfd opens the sandbox process of r in a way that Go's poller can wait
// for. It fails when the process is gone.
func openPidfd(r *record) (*os.File, error) {
	if r.SandboxPID <= 0 {
		return nil, os.ErrNotExist
	}
	fd, err := unix.PidfdOpen(r.SandboxPID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Only now is it sure that the number is not used by another process later.
	if !r.alive() {
		_ = f.Close()
		return nil, os.ErrNotExist
	}
	return f, nil
}

// waitPidfd blocks until the process has ended, and reports false if ctx ends
// first.
func waitPidfd(ctx context.Context, f *os.File) bool {
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	rc, err := f.SyscallConn()
	if err != nil {
		return false
	}
	err = rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0
	})
	return err == nil
}
