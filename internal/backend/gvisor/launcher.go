package gvisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// launcher is the process that has started a sandbox, see launcherMain.
type launcher struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	kill   context.CancelFunc
	stderr bytes.Buffer
	mu     sync.Mutex // held by status and release
	gone   bool
}

// startLauncher runs exe, this program, again as a launcher and returns when it has
// started the sandbox or failed to. The launcher is the caller's to release
// unless err is set.
func startLauncher(ctx context.Context, exe string, timeout time.Duration, req launchRequest) (*launcher, launchReply, error) {
	line, err := json.Marshal(req)
	if err != nil {
		return nil, launchReply{}, err
	}
	life, kill := context.WithCancel(context.Background())
	l := &launcher{kill: kill, cmd: exec.CommandContext(life, exe)}
	l.cmd.Args = []string{launcherName}
	l.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	l.cmd.Dir = "/"
	l.cmd.Stderr = &l.stderr
	// Signals to this process's group or terminal are not for sandboxes.
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := l.cmd.StdinPipe()
	if err != nil {
		kill()
		return nil, launchReply{}, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		kill()
		return nil, launchReply{}, err
	}
	l.in, l.out = in, json.NewDecoder(out)
	if err := l.cmd.Start(); err != nil {
		kill()
		return nil, launchReply{}, fmt.Errorf("start launcher: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, kill)
	var r launchReply
	_, err = l.in.Write(append(line, '\n'))
	if err == nil {
		err = l.out.Decode(&r)
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		l.release()
		return nil, r, fmt.Errorf("start sandbox: %w: %s", err, bytes.TrimSpace(l.stderr.Bytes()))
	}
	return l, r, nil
}

// status waits for the sandbox process to end and returns how it did.
func (l *launcher) status(ctx context.Context) (uint32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return 0, errors.New("the launcher is gone")
	}
	stop := context.AfterFunc(ctx, l.kill)
	defer stop()
	if _, err := l.in.Write([]byte("\n")); err != nil {
		return 0, err
	}
	var w waitReply
	if err := l.out.Decode(&w); err != nil {
		return 0, err
	}
	if w.Error != "" {
		return 0, errors.New(w.Error)
	}
	return w.Status, nil
}

// release lets the launcher end and collects it. It may be called again.
func (l *launcher) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	l.gone = true
	_ = l.in.Close()
	_ = l.cmd.Wait()
	l.kill()
}
