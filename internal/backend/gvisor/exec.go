package gvisor

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/specutils"
)

// execTimeout bounds the start of a process, not its life.
const execTimeout = 30 * time.Second

// process is a process started by Exec.
type process struct {
	m      *machine
	pid    int32 // inside
	done   chan struct{}
	ending flash.Ending // once done is closed
}

var _ backend.Process = (*process)(nil)

// Exec starts a process.
func (m *machine) Exec(ctx context.Context, s backend.ExecSpec) (backend.Process, error) {
	if err := checkWords("command", s.Args); err != nil {
		return nil, err
	}
	if err := checkWords("env", s.Env); err != nil {
		return nil, err
	}
	args, err := m.execArgs(s)
	if err != nil {
		return nil, err
	}
	release, err := m.share(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if m.hasEnded() {
		return nil, m.conflict()
	}
	if m.phase() != phaseRunning {
		return nil, flash.Errorf(flash.Conflict, "sandbox %s is paused", m.id).WithRemediation("Resume it first.")
	}
	st, err := openStreams(s)
	if err != nil {
		return nil, err
	}
	args.FilePayload = control.FilePayload{FilePayload: urpc.FilePayload{Files: st.theirs[:]}, GuestFDs: []int{0, 1, 2}}
	// The connection outlives this call: it also carries the question how the
	// process ends.
	c, pid, err := m.start(ctx, args, st.theirs[:])
	st.closeTheirs()
	if err != nil {
		st.abandon()
		return nil, m.execError(ctx, err, s.Args[0])
	}
	p := &process{m: m, pid: pid, done: make(chan struct{})}
	if ctx.Err() != nil {
		// Nobody will hear of this process.
		st.abandon()
		go p.follow(c, st)
		if err := p.Kill(context.WithoutCancel(ctx)); err != nil {
			m.b.log.Error("a command that nobody waits for could not be killed", "sandbox", m.id, "pid", pid, "err", err)
		}
		return nil, ctx.Err()
	}
	st.run(s)
	go p.follow(c, st)
	return p, nil
}

// start starts a process and returns the connection over which that was done.
// Once asked for, the process may run, so its number is waited for even when
// ctx ends.
func (m *machine) start(ctx context.Context, args *control.ExecArgs, files []*os.File) (*conn, int32, error) {
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	c, err := dial(ctx, m.socket())
	if err != nil {
		return nil, 0, err
	}
	if err := ctx.Err(); err != nil {
		c.close()
		return nil, 0, err
	}
	ctx, cancelCall := context.WithTimeout(context.WithoutCancel(ctx), execTimeout)
	defer cancelCall()
	var pid int32
	if err := c.call(ctx, boot.ContMgrExecuteAsync, args, &pid, files...); err != nil {
		c.close()
		return nil, 0, err
	}
	return c, pid, nil
}

// execError turns a failed start into an error for users.
func (m *machine) execError(ctx context.Context, err error, arg0 string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if isRemote(err) {
		switch code, why := classify(err.Error()); code {
		case exitNotFound, exitNotExecutable:
			return &backend.StartError{ExitCode: code, Message: fmt.Sprintf("%s: %s", arg0, why)}
		}
		if strings.HasSuffix(err.Error(), "try again") {
			return flash.Errorf(flash.Exhausted, "sandbox %s has reached its limit of processes", m.id).
				WithRemediation("end some of its processes, or delete it").WithCause(err)
		}
		if strings.Contains(err.Error(), "working directory") {
			return &backend.StartError{ExitCode: exitNotExecutable, Message: "the working directory does not exist"}
		}
	}
	if m.hasEnded() || isRemote(err) && strings.Contains(err.Error(), "has stopped") {
		return m.conflict()
	}
	return fmt.Errorf("exec in %s: %w", m.id, err)
}

// checkWords refuses what can't be handed to a process by way of JSON.
func checkWords(field string, words []string) error {
	if field == "command" && len(words) == 0 {
		return flash.Errorf(flash.Invalid, "command: is empty")
	}
	for i, w := range words {
		switch {
		case strings.Contains(w, "\x00"):
			return flash.Errorf(flash.Invalid, "%s: word %d holds a NUL byte", field, i)
		case !utf8.ValidString(w):
			return flash.Errorf(flash.Invalid, "%s: word %d is not UTF-8", field, i)
		}
	}
	return nil
}

// execArgs completes a spec with what is the machine's.
func (m *machine) execArgs(s backend.ExecSpec) (*control.ExecArgs, error) {
	u := m.rec.User
	if s.User != "" {
		var err error
		if u, err = resolveUser(m.rec.Rootfs, s.User); err != nil {
			return nil, err
		}
	}
	dir := m.rec.Dir
	if s.Dir != "" {
		if !path.IsAbs(s.Dir) {
			return nil, flash.Errorf(flash.Invalid, "dir: %q is not absolute", s.Dir)
		}
		dir = s.Dir
	}
	caps, err := specutils.Capabilities(true, capabilitiesOf(u.UID))
	if err != nil {
		return nil, err
	}
	a := &control.ExecArgs{
		Argv: s.Args, Envv: mergeEnv(m.rec.Env, s.Env), WorkingDirectory: dir,
		KUID: auth.KUID(u.UID), KGID: auth.KGID(u.GID),
		Capabilities: caps, NoNewPrivileges: true, ContainerID: containerID,
	}
	for _, g := range u.Gids {
		a.ExtraKGIDs = append(a.ExtraKGIDs, auth.KGID(g))
	}
	return a, nil
}

// mergeEnv returns base with the variables of over set.
func mergeEnv(base, over []string) []string {
	if len(over) == 0 {
		return base
	}
	env := slices.Clone(base)
	for _, v := range over {
		name, _, _ := strings.Cut(v, "=")
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if i < 0 {
			env = append(env, v)
		} else {
			env[i] = v
		}
	}
	return env
}

// follow waits for the process to end and hands over what is left of its
// output.
func (p *process) follow(c *conn, st *streams) {
	var ws uint32
	args := &boot.WaitPIDArgs{PID: p.pid, CID: containerID}
	err := c.call(p.m.b.running, boot.ContMgrWaitPID, args, &ws)
	c.close()
	st.finish()
	if err == nil {
		p.ending = exitOf(ws)
	} else {
		p.ending = p.m.gone(err)
	}
	close(p.done)
}

// gone says how a process ended whose sandbox no longer answers.
func (m *machine) gone(err error) flash.Ending {
	e := flash.Ending{Cause: flash.CauseSandboxGone, ExitCode: -1, Message: "The sandbox ended under the command."}
	select {
	case <-m.ended:
	case <-m.destroying:
	case <-time.After(time.Second):
		// The sandbox lives: the daemon is stopping, or gVisor misbehaves.
		m.b.log.Warn("a command was lost sight of", "sandbox", m.id, "err", err)
		e.Cause, e.Message = flash.CauseUnknown, "The daemon lost sight of the command."
		return e
	}
	select {
	case <-m.ended:
		if m.ending.Cause == flash.CauseOOM {
			return m.ending
		}
	default:
	}
	return e
}

// Wait blocks until the process has ended.
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

// killTimeout bounds a kill.
const killTimeout = 10 * time.Second

// Kill kills the process, its group and, as far as they can still be told, its
// descendants.
func (p *process) Kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	select {
	case <-p.done:
		return nil
	default:
	}
	c, err := dial(ctx, p.m.socket())
	if err != nil {
		if p.m.hasEnded() {
			return nil
		}
		return err
	}
	defer c.close()
	// The tree is read before its root dies and its branches lose their parent.
	victims := []int32{p.pid}
	var list []*control.Process
	cid := containerID
	if err := c.call(ctx, boot.ContMgrProcesses, &cid, &list); err != nil {
		return p.killError(err)
	}
	for i := 0; i < len(victims); i++ {
		for _, q := range list {
			if int32(q.PPID) == victims[i] {
				victims = append(victims, int32(q.PID))
			}
		}
	}
	kill := func(pid int32, mode boot.SignalDeliveryMode) error {
		err := c.call(ctx, boot.ContMgrSignal, &boot.SignalArgs{CID: containerID, Signo: int32(syscall.SIGKILL), PID: pid, Mode: mode}, nil)
		if isRemote(err) {
			return nil // it has ended meanwhile
		}
		return err
	}
	// The process leads a group of its own; what forks meanwhile is in it.
	if err := kill(p.pid, boot.DeliverToProcessGroup); err != nil {
		return p.killError(err)
	}
	for _, pid := range victims {
		if err := kill(pid, boot.DeliverToProcess); err != nil {
			return p.killError(err)
		}
	}
	return nil
}

func (p *process) killError(err error) error {
	if isRemote(err) || p.m.hasEnded() {
		return nil
	}
	return fmt.Errorf("kill: %w", err)
}
