package fake

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// process is a process started by Exec.
type process struct {
	m      *Machine
	pid    int
	start  uint64
	killed atomic.Bool
	done   chan struct{} // closed when ending is set
	ending flash.Ending
}

// Exec implements backend.Execer.
func (m *Machine) Exec(ctx context.Context, s backend.ExecSpec) (backend.Process, error) {
	if len(s.Args) == 0 {
		return nil, flash.Errorf(flash.Invalid, "command: is empty")
	}
	unlock, err := m.begin(ctx, OpExec, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if exists(m.pausedFile()) {
		return nil, flash.Errorf(flash.Conflict, "the machine is paused").WithRemediation("resume it first")
	}
	dir, usr := s.Dir, s.User
	if dir == "" {
		dir = m.state.Dir
	}
	if usr == "" {
		usr = m.state.User
	}
	cred, err := credential(usr)
	if err != nil {
		return nil, err
	}
	env := m.env(s.Env)
	path, err := lookPath(s.Args[0], env, m.below(dir))
	if err != nil {
		return nil, err
	}
	if fi, err := os.Stat(m.below(dir)); err != nil || !fi.IsDir() {
		return nil, flash.Errorf(flash.Invalid, "dir: %q is no directory in the machine", dir)
	}

	var theirs, ours []*os.File
	fail := func(err error) (backend.Process, error) {
		closeAll(theirs)
		closeAll(ours)
		return nil, err
	}
	// Null for what the caller doesn't give, a pipe for what it does.
	stream := func(wanted, input bool) error {
		if !wanted {
			f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			theirs, ours = append(theirs, f), append(ours, nil)
			return err
		}
		r, w, err := os.Pipe()
		if input {
			r, w = w, r
		}
		theirs, ours = append(theirs, w), append(ours, r)
		return err
	}
	if err := errors.Join(stream(s.Stdin != nil, true), stream(s.Stdout != nil, false), stream(s.Stderr != nil, false)); err != nil {
		return fail(err)
	}
	proc, err := os.StartProcess(path, s.Args, &os.ProcAttr{
		Dir: m.below(dir), Env: env, Files: theirs,
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: cred},
	})
	switch {
	case errors.Is(err, unix.ENOENT): // of a script, its interpreter
		return fail(&backend.StartError{ExitCode: 127, Message: s.Args[0] + ": not found"})
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC):
		return fail(&backend.StartError{ExitCode: 126, Message: s.Args[0] + ": can't be executed"})
	case err != nil:
		return fail(err)
	}
	closeAll(theirs)
	p := &process{m: m, pid: proc.Pid, done: make(chan struct{})}
	if st, err := readStat(proc.Pid); err == nil {
		p.start = st.start
	}
	go p.run(proc, s, ours)
	return p, nil
}

// run moves the streams and waits for the end.
func (p *process) run(proc *os.Process, s backend.ExecSpec, ours []*os.File) {
	if in := ours[0]; in != nil {
		go func() {
			_, _ = io.Copy(in, s.Stdin)
			_ = in.Close()
		}()
	}
	var copying sync.WaitGroup
	for i, w := range []io.Writer{s.Stdout, s.Stderr} {
		if r := ours[1+i]; r != nil {
			copying.Go(func() { copyOut(w, r) })
		}
	}
	state, err := proc.Wait()
	for _, r := range ours[1:] {
		if r != nil {
			_ = r.SetReadDeadline(time.Unix(1, 0)) // from here on, only what is in the pipe
		}
	}
	copying.Wait()
	closeAll(ours)
	p.ending = p.judge(state, err)
	if err == nil {
		p.m.cpu.Add(int64(state.UserTime() + state.SystemTime()))
	}
	close(p.done)
}

// judge turns what the kernel says of the end into an Ending.
func (p *process) judge(state *os.ProcessState, err error) flash.Ending {
	if err != nil {
		return flash.Ending{Cause: flash.CauseUnknown, ExitCode: -1, Message: "its end could not be observed"}
	}
	ws, _ := state.Sys().(syscall.WaitStatus) // always that on Linux
	e := flash.Ending{Cause: flash.CauseExited, ExitCode: ws.ExitStatus()}
	if ws.Signaled() {
		e = flash.Ending{Cause: flash.CauseSignal, ExitCode: 128 + int(ws.Signal()), Message: "killed by signal " + ws.Signal().String()}
	}
	// A shell whose child is killed a moment before itself exits by itself,
	// with the code that stands for the signal.
	switch {
	case e.ExitCode <= 128:
	case p.killed.Load():
		e.Cause, e.Message = flash.CauseCancelled, "killed on request"
	case p.m.ended():
		e.Cause, e.Message = flash.CauseSandboxGone, "the sandbox ended under it"
	}
	return e
}

// copyOut copies r to w until the end of r or until r's deadline, and then
// exactly what is in the pipe: children that live on may write for ever. When
// w fails, the rest is read and thrown away, so that the process isn't stuck.
func copyOut(w io.Writer, r *os.File) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && w != nil {
			if _, werr := w.Write(buf[:n]); werr != nil {
				w = nil
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			break
		}
	}
	_ = r.SetReadDeadline(time.Time{})
	left, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
	if err != nil {
		return
	}
	if w == nil {
		w = io.Discard
	}
	_, _ = io.CopyN(w, r, int64(left))
}

// Wait implements backend.Process.
func (p *process) Wait(ctx context.Context) (flash.Ending, error) {
	select {
	case <-p.done:
		return p.ending, nil
	default:
	}
	select {
	case <-p.done:
		return p.ending, nil
	case <-ctx.Done():
		return flash.Ending{}, ctx.Err()
	}
}

// Kill implements backend.Process: the process, its session and all their
// descendants.
func (p *process) Kill(ctx context.Context) error {
	p.killed.Store(true)
	deadline := time.Now().Add(stopDeadline)
	for {
		procs, err := processes(p.m.dir)
		if err != nil {
			return err
		}
		mine := map[int]bool{p.pid: true}
		for grown := true; grown; {
			grown = false
			for _, st := range procs {
				if !mine[st.pid] && (mine[st.ppid] || st.session == p.pid) {
					mine[st.pid], grown = true, true
				}
			}
		}
		open := 0
		for _, st := range procs {
			if mine[st.pid] && (st.pid != p.pid || st.start == p.start) {
				open++
				_ = unix.Kill(st.pid, unix.SIGKILL)
			}
		}
		if open == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("processes did not die")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
