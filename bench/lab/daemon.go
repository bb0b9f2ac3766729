package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/client"
)

// Daemon is a running fsbd.
type Daemon struct {
	Client *client.Client
	URL    string // without a slash at its end
	PID    int    // 0: not known, as it is not on this host or not ours
	AtRest Gauges // before its first request for a sandbox

	images string
	env    []string
	ended  <-chan struct{} // nil if it is not ours

	revived bool // it died and was started again, to clean up
}

// Image returns the reference of an image.
func (d *Daemon) Image(kind Kind) string { return d.images + string(kind) + ":latest" }

// Program returns the fsbd to use, which is also runsc when it is called so.
func (l *Lab) Program() (string, error) {
	path := l.o.Program
	if path == "" {
		path = filepath.Join(l.repo, "bin/fsbd")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no %s; make build makes bin/fsbd", path)
	}
	return filepath.Abs(path)
}

// Daemon starts fsbd, with a Docker engine if that is wanted and can be had, or
// finds the one that runs already.
func (l *Lab) Daemon(ctx context.Context) (*Daemon, error) {
	return l.daemon.get(func() (*Daemon, error) { return l.startDaemon(ctx) })
}

func (l *Lab) startDaemon(ctx context.Context) (*Daemon, error) {
	reg, err := l.Registry(ctx)
	if err != nil {
		return nil, err
	}
	d := &Daemon{images: reg.Addr() + "/bench/"}
	addr := l.o.Addr
	if addr == "" {
		ports, err := freePorts(2)
		if err != nil {
			return nil, err
		}
		addr = ports[0]
		docker := "off"
		if l.o.Docker {
			if engine, err := l.Docker(ctx); err == nil {
				docker = engine.Host
			} else {
				l.Logf("fsbd gets no Docker engine: %v", err)
			}
		}
		d.env = append(os.Environ(), "FSB_HTTP_ADDR="+ports[0], "FSB_GRPC_ADDR="+ports[1],
			"FSB_DATA_DIR="+filepath.Join(l.dir, "data"), "FSB_DOCKER_HOST="+docker)
	}
	if d.Client, err = client.New(addr, client.Options{}); err != nil {
		return nil, err
	}
	d.URL = d.Client.Address()[:len(d.Client.Address())-1]
	if err := l.serve(ctx, d); err != nil {
		return nil, err
	}
	time.Sleep(time.Second) // what starting up has to do is not rest
	d.AtRest = d.Gauges(ctx)
	return d, nil
}

// serve starts fsbd, unless one runs already, and waits until it serves.
func (l *Lab) serve(ctx context.Context, d *Daemon) (err error) {
	logFile := filepath.Join(l.dir, "fsbd.log")
	if l.o.Addr == "" {
		if d.PID, d.ended, err = l.spawn(logFile, d.env); err != nil {
			return err
		}
	}
	l.onClose("sandboxes of fsbd", func(ctx context.Context) error { return l.empty(ctx, d) })
	if err := d.ready(ctx); err != nil {
		text, _ := os.ReadFile(logFile)
		return fmt.Errorf("%w\n%s", err, tail(string(text)))
	}
	return nil
}

// spawn starts fsbd and returns its process, and what closes when that ends.
func (l *Lab) spawn(logFile string, env []string) (pid int, ended <-chan struct{}, err error) {
	program, err := l.Program()
	if err != nil {
		return 0, nil, err
	}
	l.Logf("starting %s", program)
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	l.onClose("fsbd", func(ctx context.Context) error {
		select {
		case <-done:
			text, _ := os.ReadFile(logFile)
			return fmt.Errorf("had ended before: %s\n%s", cmd.ProcessState, tail(string(text)))
		default:
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
			return nil
		case <-time.After(20 * time.Second):
		case <-ctx.Done():
		}
		_ = cmd.Process.Kill()
		<-done
		return errors.New("did not end on SIGTERM and was killed")
	})
	return cmd.Process.Pid, done, nil
}

// freePorts returns addresses that nobody listens on.
func freePorts(n int) ([]string, error) {
	var out []string
	for range n {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer lis.Close()
		out = append(out, lis.Addr().String())
	}
	return out, nil
}

// ready waits until the daemon serves.
func (d *Daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				http.DefaultClient.CloseIdleConnections()
				return nil
			}
			err = fmt.Errorf("/readyz answers %s", res.Status)
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		select {
		case <-d.ended:
			return errors.New("fsbd has ended at once")
		case <-ctx.Done():
			return fmt.Errorf("fsbd does not get ready: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// empty deletes the sandboxes that are left, of a daemon of our own all. One
// that has died is started once more, as it alone knows all that they consist of.
func (l *Lab) empty(ctx context.Context, d *Daemon) error {
	defer d.Client.Close()
	if d.PID == 0 {
		return nil // others may use it; ours are deleted one by one
	}
	select {
	case <-d.ended:
		if d.revived {
			return errors.New("fsbd has died again")
		}
		d.revived = true
		return l.serve(ctx, d) // which adds this step again
	default:
	}
	list, err := d.Client.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, sb := range list {
		if err := d.Client.Delete(ctx, sb.ID, flash.DeleteOptions{}); err != nil && !errors.Is(err, flash.NotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
