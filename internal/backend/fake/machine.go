package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Machine is one machine of the fake backend. Several values, in several
// processes, may stand for the same machine.
type Machine struct {
	b     *Backend
	id    flash.ID
	dir   string
	state state
	cpu   *atomic.Int64
}

// Files of a machine beside machine.json, stdin and lock.
func (m *Machine) root() string       { return filepath.Join(m.dir, "root") }
func (m *Machine) exitFile() string   { return filepath.Join(m.dir, "exit") }
func (m *Machine) goneFile() string   { return filepath.Join(m.dir, "gone") }   // Destroy has begun
func (m *Machine) pausedFile() string { return filepath.Join(m.dir, "paused") } // it is meant to be paused

// below joins an absolute path of the machine below its root.
func (m *Machine) below(dir string) string { return filepath.Join(m.root(), filepath.Join("/", dir)) }

// Handle implements backend.Machine.
func (m *Machine) Handle() backend.Handle {
	data, _ := json.Marshal(struct {
		PID   int    `json:"pid,omitempty"`
		Start uint64 `json:"start,omitempty"`
	}{m.state.PID, m.state.Start}) // for people who look at it: machine.json decides
	return backend.Handle{Backend: m.b.cfg.Name, Version: handleVersion, ID: m.id, Data: data}
}

// Status implements backend.Machine.
func (m *Machine) Status(ctx context.Context) (backend.Status, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	switch {
	case !exists(m.dir):
		return "", flash.SandboxNotFound(m.id, "the fake backend has no such machine")
	case m.ended():
		return backend.StatusEnded, nil
	case exists(m.pausedFile()):
		return backend.StatusPaused, nil
	}
	return backend.StatusRunning, nil
}

func (m *Machine) ended() bool {
	return exists(m.goneFile()) || !exists(m.dir) || !alive(m.state.PID, m.state.Start)
}

// Wait implements backend.Machine. It also kills what the main command leaves
// behind, as the end of a PID namespace would.
func (m *Machine) Wait(ctx context.Context) (flash.Ending, error) {
	if err := waitEnd(ctx, m.state.PID, m.state.Start); err != nil {
		return flash.Ending{}, err
	}
	data, _ := os.ReadFile(m.exitFile())
	_ = signalAll(m.dir, unix.SIGKILL, never) // what resists is Destroy's to report
	code, err := strconv.Atoi(strings.TrimSpace(string(data)))
	switch {
	case err == nil && code > 128 && code <= 128+64:
		sig := unix.Signal(code - 128)
		return flash.Ending{Cause: flash.CauseSignal, ExitCode: code, Message: fmt.Sprintf("killed by signal %d (%s)", sig, sig)}, nil
	case err == nil:
		return flash.Ending{Cause: flash.CauseExited, ExitCode: code}, nil
	case m.state.PID == 0:
		return flash.Ending{Cause: flash.CauseStartFailed, ExitCode: -1, Message: "the machine was never wholly made"}, nil
	case exists(m.goneFile()) || !exists(m.dir):
		return flash.Ending{Cause: flash.CauseCancelled, ExitCode: exitKilled, Message: "the machine was destroyed"}, nil
	}
	return flash.Ending{Cause: flash.CauseUnknown, ExitCode: -1, Message: "the supervising process was killed"}, nil
}

// Destroy implements backend.Machine.
func (m *Machine) Destroy(ctx context.Context) error {
	if err := m.b.fault(ctx, OpDestroy, m.id); err != nil {
		return err
	}
	return m.remove(ctx)
}

// remove is Destroy, and the undoing of a Create that failed.
func (m *Machine) remove(ctx context.Context) error {
	if err := os.WriteFile(m.goneFile(), nil, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// An exec that is just being started has either ended up in the process
	// list once the lock is had, or finds the machine gone.
	if unlock, err := m.lock(ctx, unix.LOCK_EX); err == nil {
		defer unlock()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if m.state.PID != 0 && alive(m.state.PID, m.state.Start) {
		if err := unix.Kill(m.state.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	if err := signalAll(m.dir, unix.SIGKILL, never); err != nil {
		return err
	}
	alive(m.state.PID, m.state.Start) // collects it
	if err := m.b.fault(ctx, OpDestroyKilled, m.id); err != nil {
		return err
	}
	if err := os.RemoveAll(m.dir); err != nil {
		return err
	}
	m.b.mu.Lock()
	delete(m.b.cpu, m.id)
	m.b.mu.Unlock()
	return nil
}

// Pause implements backend.Pauser.
func (m *Machine) Pause(ctx context.Context) error {
	unlock, err := m.begin(ctx, OpPause, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	return m.pause()
}

func (m *Machine) pause() error {
	if err := os.WriteFile(m.pausedFile(), nil, 0o600); err != nil {
		return err
	}
	if err := signalAll(m.dir, unix.SIGSTOP, stopped); err != nil {
		return errors.Join(err, m.resume())
	}
	return nil
}

// Resume implements backend.Pauser.
func (m *Machine) Resume(ctx context.Context) error {
	unlock, err := m.begin(ctx, OpResume, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	return m.resume()
}

func (m *Machine) resume() error {
	if !exists(m.pausedFile()) {
		return nil
	}
	if err := signalAll(m.dir, unix.SIGCONT, running); err != nil {
		return err
	}
	return os.Remove(m.pausedFile())
}

func never(stat, bool) bool { return false }

// stopped also takes a process in an uninterruptible sleep, which stops when
// it wakes up: the parent of a vfork sleeps like that until its child, which
// may be stopped by now, goes on.
func stopped(s stat, had bool) bool {
	return s.state == 'T' || s.state == 't' || had && s.state == 'D'
}

func running(s stat, _ bool) bool { return s.state != 'T' && s.state != 't' }

// begin asks for a fault, takes the machine's lock and checks that the machine
// still runs.
func (m *Machine) begin(ctx context.Context, op string, how int) (unlock func(), err error) {
	if err := m.b.fault(ctx, op, m.id); err != nil {
		return nil, err
	}
	unlock, err = m.lock(ctx, how)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, flash.SandboxNotFound(m.id, "the fake backend has no such machine")
	}
	if err != nil {
		return nil, err
	}
	if m.ended() {
		unlock()
		return nil, flash.Errorf(flash.Conflict, "the machine's main command has ended")
	}
	return unlock, nil
}

// lock takes the machine's file lock, which orders operations on one machine
// across processes.
func (m *Machine) lock(ctx context.Context, how int) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(m.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
