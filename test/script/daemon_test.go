package script

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/client"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

type daemonKey struct{}

// daemon is a script's fsbd, run after run on one data directory.
type daemon struct {
	t      testing.TB // the script's, once it runs
	bin    string
	data   string
	vars   []string // environment of the first start
	before testenv.Snapshot

	cmd        *exec.Cmd // nil while none runs
	done       chan error
	log        *buffer
	http, grpc string
	started    bool
}

func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	d := ts.Value(daemonKey{}).(*daemon)
	if len(args) == 0 {
		ts.Fatalf("usage: daemon start|stop|kill|log")
	}
	if neg && args[0] != "log" {
		ts.Fatalf("only daemon log can be negated")
	}
	switch args[0] {
	case "start", "start-unprivileged":
		ts.Check(d.start(args[1:], args[0] != "start"))
		for name, value := range map[string]string{
			"ADDR": d.http, "GRPC_ADDR": d.grpc, "FLASH_SANDBOX_ADDR": d.http, "PID": strconv.Itoa(d.cmd.Process.Pid),
		} {
			ts.Setenv(name, value)
		}
	case "stop":
		ts.Check(d.stop(syscall.SIGTERM))
	case "kill":
		_ = d.stop(syscall.SIGKILL) // it has no good exit code
	case "log":
		re, err := regexp.Compile(strings.Join(args[1:], " "))
		ts.Check(err)
		if d.log == nil || re.MatchString(d.log.String()) == neg {
			ts.Fatalf("the log matches %q: %v", re, neg)
		}
	default:
		ts.Fatalf("unknown: daemon %s", args[0])
	}
}

// start starts fsbd and returns once it says that it is ready. Unprivileged,
// the data directory is given away as well.
func (d *daemon) start(vars []string, unprivileged bool) error {
	if d.cmd != nil {
		return fmt.Errorf("fsbd runs already")
	}
	cmd := exec.Command(d.bin)
	cmd.Env = append(append([]string{}, d.vars...), vars...)
	cmd.Dir = "/"
	if unprivileged {
		const nobody = 65534
		if err := os.Chown(d.data, nobody, nobody); err != nil {
			return err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd, d.log, d.done, d.started = cmd, newBuffer(), make(chan error, 1), true
	ready := make(chan [2]string, 1)
	go follow(io.TeeReader(out, d.log), ready)
	// Not cmd.Wait, which would close the pipe before all of it is read.
	go func() {
		state, err := cmd.Process.Wait()
		if err == nil && !state.Success() {
			err = errors.New(state.String())
		}
		d.done <- err
	}()
	select {
	case addrs := <-ready:
		d.http, d.grpc = addrs[0], addrs[1]
		return nil
	case err := <-d.done:
		d.cmd = nil
		return fmt.Errorf("fsbd ended before it was ready: %w\n%s", err, d.log)
	case <-time.After(startTimeout):
		return fmt.Errorf("fsbd is not ready after %s\n%s", startTimeout, d.log)
	}
}

// follow reads the log to its end and sends the addresses once they are there.
func follow(r io.Reader, ready chan<- [2]string) {
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadBytes('\n')
		var entry struct{ Msg, HTTP, GRPC string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "fsbd is ready" {
			ready <- [2]string{entry.HTTP, entry.GRPC}
		}
		if err != nil {
			return
		}
	}
}

// stop sends a signal and waits for the end.
func (d *daemon) stop(signal syscall.Signal) error {
	if d.cmd == nil {
		return fmt.Errorf("no fsbd runs")
	}
	if err := d.cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case err := <-d.done:
		d.cmd = nil
		if err != nil {
			return fmt.Errorf("fsbd ended badly: %w\n%s", err, d.log)
		}
		return nil
	case <-time.After(stopTimeout):
		_ = d.cmd.Process.Kill()
		<-d.done
		d.cmd = nil
		return fmt.Errorf("fsbd goes on %s after signal %s\n%s", stopTimeout, signal, d.log)
	}
}

// clean removes every sandbox and snapshot through the API, ends the daemon,
// and checks that nothing of it is left on the host.
func (d *daemon) clean() {
	if d.started {
		if err := d.removeAll(); err != nil {
			d.t.Errorf("clean up: %v", err)
		}
	}
	if d.cmd != nil {
		if err := d.stop(syscall.SIGTERM); err != nil {
			d.t.Errorf("clean up: %v", err)
		}
	}
	if d.t.Failed() && d.log != nil {
		d.t.Logf("last log of fsbd:\n%s", d.log)
	}
	if err := os.RemoveAll(d.data); err != nil {
		d.t.Error(err)
	}
	testenv.Check(d.t, d.before)
}

func (d *daemon) removeAll() error {
	if d.cmd == nil {
		if err := d.start(nil, false); err != nil {
			return err
		}
	}
	c, err := client.New(d.http, client.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all, err := c.List(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		// A command that the script left in the background may be removing it too.
		if err := c.Delete(ctx, s.ID, flash.DeleteOptions{}); err != nil && !errors.Is(err, flash.NotFound) {
			return err
		}
	}
	snapshots, err := c.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range snapshots {
		if err := c.DeleteSnapshot(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}
