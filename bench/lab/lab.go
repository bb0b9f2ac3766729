// Package lab sets up what the benchmark measures on: images, an image
// registry, a private Docker engine, a daemon of ours, a server with an empty
// handler. Everything is made when it is first asked for, lives below one
// directory of its own, and is gone after Close. It measures nothing.
//
//	l, err := lab.New(lab.Options{Log: os.Stderr})
//	defer l.Close()
//	rootfs, err := l.Rootfs(ctx, lab.Python)
//	engine, err := l.Docker(ctx)
//
// A Lab is set up by one goroutine; what it hands out may be used by many.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
)

// Kind is one of the images that test/images/build.sh makes.
type Kind string

// The images.
const (
	Busybox Kind = "busybox" // a shell and small tools
	Python  Kind = "python"  // the same with Python 3
)

// Kinds lists the images.
var Kinds = []Kind{Busybox, Python}

// Path is the environment of commands that no image's config gives one.
const Path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Options says how to set up.
type Options struct {
	// Addr is a daemon that runs already; "": one is started.
	Addr string
	// Program is the fsbd to start; "": bin/fsbd of the repository.
	Program string
	// Docker says that a daemon that is started is to have a Docker engine.
	Docker bool
	// Log takes a line now and then on what is being done.
	Log io.Writer
}

// Lab holds what has been set up.
type Lab struct {
	o       Options
	repo    string
	dir     string
	undo    []step
	rootfs  map[Kind]string
	layouts map[Kind]string
	reg     *registry.Server
	docker  once[*Engine]
	daemon  once[*Daemon]
	idle    once[string] // the server with an empty handler
}

// step is one part of taking everything down.
type step struct {
	name string
	f    func(context.Context) error
}

// once keeps what was made, or why it could not be.
type once[T any] struct {
	done  bool
	value T
	err   error
}

func (o *once[T]) get(make func() (T, error)) (T, error) {
	if !o.done {
		o.value, o.err = make()
		o.done = true
	}
	return o.value, o.err
}

// New makes an empty lab. It must be called within the repository.
func New(o Options) (*Lab, error) {
	repo, err := findRepository()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fsb-bench-")
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	return &Lab{o: o, repo: repo, dir: dir, rootfs: map[Kind]string{}, layouts: map[Kind]string{}}, nil
}

func findRepository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "test/images/build.sh")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("must be run within the repository")
		}
		dir = up
	}
}

// Dir is the directory that everything lives below.
func (l *Lab) Dir() string { return l.dir }

// Repository is the directory of the repository.
func (l *Lab) Repository() string { return l.repo }

// Logf writes a line on what is being done.
func (l *Lab) Logf(format string, args ...any) {
	_, _ = fmt.Fprintf(l.o.Log, format+"\n", args...)
}

// onClose adds a step to Close, which takes them in reverse order.
func (l *Lab) onClose(name string, f func(context.Context) error) {
	l.undo = append(l.undo, step{name, f})
}

// stepTimeout bounds each step of Close.
const stepTimeout = 90 * time.Second

// Close takes everything down, goes on after errors, and returns them all. A
// process that is left although it should have ended is killed, and named in
// the error.
func (l *Lab) Close() error {
	var errs []error
	for len(l.undo) > 0 { // steps may add steps
		s := l.undo[len(l.undo)-1]
		l.undo = l.undo[:len(l.undo)-1]
		ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
		if err := s.f(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
		cancel()
	}
	errs = append(errs, l.killLeft(), unmountBelow(l.dir), os.RemoveAll(l.dir))
	return errors.Join(errs...)
}

// killLeft kills processes that have our directory in their command line, by
// their number. There should be none.
func (l *Lab) killLeft() error {
	var errs []error
	for range 20 {
		left := l.left()
		if len(left) == 0 {
			break
		}
		for pid, line := range left {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				errs = append(errs, fmt.Errorf("process %d was left and has been killed: %.120s", pid, line))
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(errs...)
}

func (l *Lab) left() map[int]string {
	out := map[int]string{}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range lines {
		raw, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(raw, []byte(l.dir)) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(name, "/proc/%d/cmdline", &pid); err != nil || pid == os.Getpid() {
			continue
		}
		out[pid] = strings.TrimSpace(string(bytes.ReplaceAll(raw, []byte{0}, []byte{' '})))
	}
	return out
}

// unmountBelow detaches mounts below dir, inner ones first, so that removing
// dir removes nothing behind them.
func unmountBelow(dir string) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, line := range slices.Backward(strings.Split(string(info), "\n")) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			errs = append(errs, fmt.Errorf("mount %s was left", f[4]), syscall.Unmount(f[4], syscall.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// run runs a program that sets something up and returns its output. It is
// apart from the terminal's signals, which only we take.
func (l *Lab) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = l.repo, append(os.Environ(), "TMPDIR="+l.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Left alone for a while so that it can take back what it has half done.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, tail(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// tail returns the last lines of a text.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
