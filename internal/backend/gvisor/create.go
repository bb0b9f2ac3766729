package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/pkg/sentry/state/checkpointfiles"
	"gvisor.dev/gvisor/runsc/boot"
)

// platform is how gVisor gets at the system calls of a sandbox. It needs no
// virtualisation.
const platform = "systrap"

// launchTimeout bounds a start. A restore has more, see restoreTimeout.
const launchTimeout = 60 * time.Second

// restoreTimeout bounds a restore: the memory is read from a disk that may be
// as slow as 32 MiB a second.
func restoreTimeout(dir string) time.Duration {
	fi, err := os.Stat(filepath.Join(dir, checkpointfiles.PagesFileName))
	if err != nil {
		return launchTimeout
	}
	return launchTimeout + time.Duration(fi.Size()>>25)*time.Second
}

// Create makes a machine.
func (b *Backend) Create(ctx context.Context, s backend.Spec) (backend.Machine, error) {
	m, err := b.build(ctx, s, "", nil)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// build makes a machine, from the saved state of another if restore names its
// directory.
func (b *Backend) build(ctx context.Context, s backend.Spec, restore string, saved *record) (_ *machine, err error) {
	rec, err := b.newRecord(ctx, s)
	if err != nil {
		return nil, err
	}
	if saved != nil {
		rec.User, rec.OwnTmp = saved.User, saved.OwnTmp
	}
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if err := b.removeLeftover(ctx, s.ID); err != nil {
		return nil, flash.Errorf(flash.Exists, "machine %s is still being removed", s.ID).WithCause(err)
	}
	dir := b.dir(s.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, flash.Errorf(flash.Exists, "machine %s exists already", s.ID)
		}
		return nil, err
	}
	m := newMachine(b, s.ID, rec)
	defer func() {
		if err != nil {
			b.undo(context.WithoutCancel(ctx), m)
			if ctx.Err() != nil {
				err = ctx.Err()
			}
		}
	}()
	l, err := b.launch(ctx, m, restore)
	if err != nil {
		var c *commandError
		if errors.As(err, &c) {
			return nil, flash.Errorf(flash.Invalid, "command: %s", c.message)
		}
		return nil, err
	}
	err = b.settleIn(ctx, m, l)
	b.releaseLater(m, l)
	return m, errors.Join(err, ctx.Err())
}

// infancy is how long a launcher stays to tell how its sandbox ended. After
// that the sentry has surely read the question.
const infancy = time.Second

// releaseLater releases a launcher when nobody can need it any more.
func (b *Backend) releaseLater(m *machine, l *launcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		l.release()
		return
	}
	b.watchers.Go(func() {
		select {
		case <-m.ended:
		case <-time.After(infancy):
		case <-b.running.Done():
		}
		l.release()
	})
}

// settleIn begins to watch a machine that has just started and sets its
// limits. One that has ended meanwhile is fine.
func (b *Backend) settleIn(ctx context.Context, m *machine, l *launcher) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errClosed
	}
	asked := b.watch(m, l)
	b.mu.Unlock()
	select {
	case <-asked:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := m.limit(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if m.rec.alive() && isRemote(err) {
		return err
	}
	select {
	case <-m.ended:
		return nil
	case <-time.After(endTimeout):
		return err
	}
}

// endTimeout bounds how long a sandbox that answers no more takes to end.
const endTimeout = 20 * time.Second

func (b *Backend) cgroupOf(id flash.ID) string { return b.cgroup + string(id) }

// newRecord checks a spec and resolves what depends on the image's files.
func (b *Backend) newRecord(ctx context.Context, s backend.Spec) (record, error) {
	if _, err := flash.ParseID(string(s.ID)); err != nil {
		return record{}, err
	}
	img, ok := s.Image.(backend.RootfsImage)
	if !ok {
		return record{}, flash.Errorf(flash.Unsupported, "image: this kind of image has no file system that gVisor could use")
	}
	if err := errors.Join(checkWords("command", s.Args), checkWords("env", s.Env)); err != nil {
		return record{}, err
	}
	if s.MemoryBytes > 0 && s.MemoryBytes < MinMemory {
		return record{}, flash.Errorf(flash.Invalid, "memory: %d bytes are too few, a gVisor sandbox needs at least %d", s.MemoryBytes, int64(MinMemory))
	}
	if !path.IsAbs(s.Dir) {
		return record{}, flash.Errorf(flash.Invalid, "dir: %q is not absolute", s.Dir)
	}
	rootfs, err := img.Rootfs(ctx)
	if err != nil {
		return record{}, err
	}
	u, err := resolveUser(rootfs, s.User)
	if err != nil {
		return record{}, err
	}
	return record{
		Version: recordVersion, Args: s.Args, Env: s.Env, Dir: path.Clean(s.Dir), User: u, Rootfs: rootfs,
		Hostname: s.Hostname, MemoryBytes: s.MemoryBytes, CPUs: s.CPUs, Pids: s.Pids,
		Cgroup: b.cgroupOf(s.ID), Boot: bootID(),
	}, nil
}

// launch starts the sandbox of m, whose directory exists. The launcher is the
// caller's to release. On error processes and cgroups may be left, for remove.
func (b *Backend) launch(ctx context.Context, m *machine, restore string) (*launcher, error) {
	flags, err := b.runscFlags(m)
	if err != nil {
		return nil, err
	}
	if err := b.writeBundle(m, restore != ""); err != nil {
		return nil, err
	}
	timeout := launchTimeout
	if restore != "" {
		timeout = restoreTimeout(restore)
	}
	l, reply, err := startLauncher(ctx, b.cfg.exe, timeout, launchRequest{
		Flags: flags, Bundle: m.dir, Restore: restore, Stdin: filepath.Join(m.dir, stdinFile),
	})
	if err != nil {
		return nil, err
	}
	if reply.Error != "" {
		l.release()
		return nil, startError(reply.Error, m.rec.Args[0])
	}
	m.rec.SandboxPID, m.rec.GoferPID = reply.SandboxPID, reply.GoferPID
	if m.rec.Started, err = startTime(reply.SandboxPID); err != nil {
		m.rec.Started = 0 // it has ended already
	}
	if err := writeJSON(m.dir, recordFile, m.rec); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// writeBundle writes what gVisor and a later daemon need to know of m.
func (b *Backend) writeBundle(m *machine, restore bool) (err error) {
	// A saved state has the mounts that it had.
	if own := m.rec.OwnTmp; !restore || own {
		if m.rec.OwnTmp, err = writeTmp(m.dir, m.rec.Rootfs); err != nil {
			return err
		}
	}
	if err := writeJSON(m.dir, recordFile, m.rec); err != nil {
		return err
	}
	if err := writeUpper(m.dir, m.rec.Rootfs, m.rec.Hostname); err != nil {
		return err
	}
	if err := writeJSON(m.dir, "config.json", ociSpec(&m.rec, m.dir)); err != nil {
		return err
	}
	return syscall.Mkfifo(filepath.Join(m.dir, stdinFile), 0o600)
}

// runscFlags are the flags of the runsc that starts m and of its processes.
func (b *Backend) runscFlags(m *machine) ([]string, error) {
	ns, err := b.goferNetns()
	if err != nil {
		return nil, err
	}
	flags := []string{
		"--root=" + filepath.Join(m.dir, runscDir),
		"--platform=" + platform,
		"--network=none",
		"--net-raw",
		// What the sandbox writes goes to a file on disk: neither into the
		// image, which others use, nor into the memory that is limited.
		fmt.Sprintf("--overlay2=all:dir=%s,size=%d", m.dir, b.cfg.DiskBytes),
		"--allow-rootfs-tar-annotation",
		// Of gVisor's two kinds of inner cgroups, only this one's limits can be
		// set from outside, and only where no cgroup namespace is asked for.
		"--in-sandbox-cgroup=v2",
		"--gofer-network-namespace=" + ns,
		"--host-settings=ignore",
		"--restore-spec-validation=ignore",
		// When the main command ends, idle connections to the control socket
		// must not hold the sandbox up.
		"--control-rpc-stop-timeout=0s",
	}
	if b.cfg.DebugDir != "" {
		flags = append(flags, "--debug", "--debug-log="+b.cfg.DebugDir+"/%COMMAND%.log", "--panic-log="+b.cfg.DebugDir+"/%COMMAND%.log")
	}
	return flags, nil
}

// goferNetns returns a path to an empty network namespace that all gofers are
// put in: they need no network, and one namespace is made faster than many.
// The path goes through this process's own file, so nothing is left of it.
func (b *Backend) goferNetns() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.netns == nil {
		f, err := newNetns()
		if err != nil {
			return "", err
		}
		b.netns = f
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.netns.Fd()), nil
}

func newNetns() (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is never unlocked, so it ends with this goroutine and
		// nothing else runs in the namespace.
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make a network namespace: %w", err)
			return
		}
		f, err = os.Open("/proc/thread-self/ns/net")
	}()
	<-done
	return f, err
}

// limit sets the limits that are set once the sandbox runs.
func (m *machine) limit(ctx context.Context) error {
	g, err := m.cgroup()
	if err != nil {
		return err
	}
	if m.rec.MemoryBytes > 0 {
		if err := g.DisableSwap(); err != nil {
			return fmt.Errorf("set memory limit: %w", err)
		}
	}
	if m.rec.CPUs > 0 {
		if err := g.SetCPU(m.rec.CPUs); err != nil {
			return fmt.Errorf("set CPU limit: %w", err)
		}
	}
	value := "max"
	if m.rec.Pids > 0 {
		value = fmt.Sprint(m.rec.Pids)
	}
	var out control.CgroupsResults
	err = m.call(ctx, boot.CgroupsWriteControlFiles, &control.CgroupsWriteArgs{Args: []control.CgroupsWriteArg{{
		File:  control.CgroupControlFile{Controller: "pids", Path: "/" + containerID, Name: "pids.max"},
		Value: value,
	}}}, &out)
	if err == nil && len(out.Results) == 1 && out.Results[0].IsError {
		err = remoteError{out.Results[0].Data}
	}
	if err != nil {
		return fmt.Errorf("set limit of processes: %w", err)
	}
	return nil
}

// commandError says that the main command can't be started.
type commandError struct{ message string }

func (e *commandError) Error() string { return e.message }

// startError turns what gVisor says about a failed start into an error.
func startError(text, arg0 string) error {
	code, why := classify(text)
	switch code {
	case exitNotFound:
		return &commandError{fmt.Sprintf("%s: not found in the image", arg0)}
	case exitNotExecutable:
		return &commandError{fmt.Sprintf("%s: %s", arg0, why)}
	}
	if strings.Contains(text, "working directory") || strings.Contains(text, "setting up working dir") {
		return flash.Errorf(flash.Invalid, "image: its working directory can't be used: it is not a directory").WithCause(errors.New(text))
	}
	if strings.HasPrefix(text, "restoring container") {
		return flash.Errorf(flash.Invalid, "snapshot: gVisor can't restore this state, it may be damaged").WithCause(errors.New(text))
	}
	return fmt.Errorf("start sandbox: %s", text)
}

// Exit codes of shells for programs that can't be started.
const (
	exitNotFound      = 127
	exitNotExecutable = 126
)

// classify reads gVisor's words for why a program can't be started; code is 0
// when they are about something else. There is no typed error on the wire.
func classify(text string) (code int, why string) {
	if !strings.Contains(text, "finding executable") && !strings.Contains(text, "failed to load") {
		return 0, ""
	}
	for _, c := range []struct {
		text string
		code int
		why  string
	}{
		{"no such file or directory", exitNotFound, "not found"},
		{"not a directory", exitNotFound, "not found"},
		{"permission denied", exitNotExecutable, "permission denied"},
		{"is a directory", exitNotExecutable, "is a directory"},
		{"exec format error", exitNotExecutable, "not a program this machine can run"},
		{"too many levels of symbolic links", exitNotExecutable, "too many links"},
		{"too many symbolic links encountered", exitNotExecutable, "too many links"},
		{"file name too long", exitNotExecutable, "the name is too long"},
		{"invalid argument", exitNotExecutable, "can't be executed"},
	} {
		if strings.HasSuffix(text, c.text) {
			return c.code, c.why
		}
	}
	return 0, ""
}
