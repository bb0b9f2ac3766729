package fake

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

const (
	shell = "/bin/sh"
	// supervise runs the main command and writes its exit code to descriptor
	// 3, which the command itself doesn't get.
	supervise = `"$@" 3>&-; echo $? >&3`
	// marker is the environment variable by which the processes of a machine
	// are known; its value is the machine's directory.
	marker = "FSB_FAKE_MACHINE"
)

// state is what machine.json holds: enough to find the machine again.
type state struct {
	PID         int      `json:"pid"`   // of the supervising shell
	Start       uint64   `json:"start"` // its start time, in clock ticks since boot
	Args        []string `json:"args"`
	Env         []string `json:"env"`
	Dir         string   `json:"dir"`
	User        string   `json:"user"`
	MemoryBytes int64    `json:"memory_bytes"`
}

// Create implements backend.Backend.
func (b *Backend) Create(ctx context.Context, s backend.Spec) (backend.Machine, error) {
	return b.make(ctx, s, nil)
}

// make makes a machine; fill, if given, puts content into its root first.
func (b *Backend) make(ctx context.Context, s backend.Spec, fill func(root string) error) (_ backend.Machine, err error) {
	if err := b.fault(ctx, OpCreate, s.ID); err != nil {
		return nil, err
	}
	if _, err := flash.ParseID(string(s.ID)); err != nil {
		return nil, err
	}
	if len(s.Args) == 0 {
		return nil, flash.Errorf(flash.Invalid, "command: is empty")
	}
	m := b.machine(s.ID)
	m.state = state{Args: s.Args, Env: s.Env, Dir: s.Dir, User: s.User, MemoryBytes: s.MemoryBytes}
	if err := os.MkdirAll(b.cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(m.dir, 0o755); errors.Is(err, os.ErrExist) {
		return nil, flash.Errorf(flash.Exists, "a machine named %s exists already", s.ID)
	} else if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && !errors.Is(err, ErrCrash) {
			err = errors.Join(err, m.remove(context.WithoutCancel(ctx)))
		}
	}()
	if err := b.fault(ctx, OpCreateDir, s.ID); err != nil {
		return nil, err
	}
	if err := os.Mkdir(m.root(), 0o755); err != nil {
		return nil, err
	}
	if fill != nil {
		if err := fill(m.root()); err != nil {
			return nil, err
		}
	}
	if err := m.start(); err != nil {
		return nil, err
	}
	if err := b.fault(ctx, OpCreateStarted, s.ID); err != nil {
		return nil, err
	}
	data, err := json.Marshal(m.state)
	if err != nil {
		return nil, err
	}
	tmp := filepath.Join(m.dir, stateName+".tmp")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, filepath.Join(m.dir, stateName)); err != nil {
		return nil, err
	}
	if err := b.fault(ctx, OpCreateDone, s.ID); err != nil {
		return nil, err
	}
	return m, nil
}

// start starts the supervising shell and with it the main command.
func (m *Machine) start() error {
	dir := m.below(m.state.Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return flash.Errorf(flash.Invalid, "dir: %q can't be made in the machine", m.state.Dir).WithCause(err)
	}
	cred, err := credential(m.state.User)
	if err != nil {
		return err
	}
	path, err := lookPath(m.state.Args[0], m.state.Env, dir)
	if err != nil {
		return flash.Errorf(flash.Invalid, "command: %w", err)
	}
	fifo := filepath.Join(m.dir, "stdin")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return err
	}
	// Open for both directions, the FIFO never reports an end of file.
	stdin, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = stdin.Close() }()
	exit, err := os.OpenFile(m.exitFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = exit.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()

	argv := append([]string{"sh", "-c", supervise, "sh", path}, m.state.Args[1:]...)
	p, err := os.StartProcess(shell, argv, &os.ProcAttr{
		Dir:   dir,
		Env:   m.env(nil),
		Files: []*os.File{stdin, null, null, exit},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: cred},
	})
	if err != nil {
		return err
	}
	// Nobody waits through p: Wait, Status and Destroy collect the shell when
	// they see that it has ended, and other processes can do without.
	m.state.PID = p.Pid
	defer func() { _ = p.Release() }()
	st, err := readStat(p.Pid)
	if err != nil {
		return err
	}
	m.state.Start = st.start
	return nil
}

// env is the environment of a process in the machine.
func (m *Machine) env(extra []string) []string {
	env := make([]string, 0, len(m.state.Env)+len(extra)+1)
	at := map[string]int{}
	for _, list := range [][]string{m.state.Env, extra, {marker + "=" + m.dir}} {
		for _, kv := range list {
			name, _, _ := strings.Cut(kv, "=")
			if i, ok := at[name]; ok {
				env[i] = kv
				continue
			}
			at[name] = len(env)
			env = append(env, kv)
		}
	}
	return env
}
