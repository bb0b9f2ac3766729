package crash

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/flash-sandbox/flash-sandbox/client"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
)

// daemon is fsbd on one data directory, run after run.
type daemon struct {
	program string
	env     []string
	cmd     *exec.Cmd
	ended   chan error
	log     *logBuffer
	client  *client.Client
}

// newDaemon prepares a daemon; nothing runs yet.
func newDaemon(t *testing.T, data, dockerHost string) *daemon {
	t.Helper()
	return &daemon{
		program: program(t),
		env: append(os.Environ(),
			"FSB_DATA_DIR="+data, "FSB_HTTP_ADDR=127.0.0.1:0", "FSB_GRPC_ADDR=127.0.0.1:0",
			"FSB_LOG_FORMAT=json", "FSB_DOCKER_HOST="+dockerHost, "FSB_REGISTRY_MIRRORS=docker.io="+hub(t)),
	}
}

// start starts fsbd and returns how long it took until it was ready.
func (d *daemon) start(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	d.cmd = exec.Command(d.program)
	d.cmd.Env = d.env
	out, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.log, d.ended = &logBuffer{}, make(chan error, 1)
	ready := make(chan string, 1)
	log, cmd, ended := d.log, d.cmd, d.ended
	go func() {
		for lines := bufio.NewReader(io.TeeReader(out, log)); ; {
			line, err := lines.ReadBytes('\n')
			var entry struct{ Msg, HTTP string }
			if json.Unmarshal(line, &entry) == nil && entry.Msg == "fsbd is ready" {
				ready <- entry.HTTP
			}
			if err != nil {
				break
			}
		}
		ended <- cmd.Wait() // after the last of the log, which it would cut
	}()
	select {
	case addr := <-ready:
		if d.client, err = client.New(addr, client.Options{}); err != nil {
			t.Fatal(err)
		}
	case err := <-d.ended:
		t.Fatalf("fsbd ended before it was ready: %v\n%s", err, d.log)
	case <-time.After(time.Minute):
		_ = d.cmd.Process.Kill()
		t.Fatalf("fsbd was not ready within a minute\n%s", d.log)
	}
	return time.Since(began)
}

// end sends the signal, waits for the end and returns how fsbd ended.
func (d *daemon) end(t *testing.T, signal os.Signal) error {
	t.Helper()
	if err := d.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("signal %s: %v\n%s", signal, err, d.log)
	}
	d.client.Close()
	d.client = nil
	select {
	case err := <-d.ended:
		return err
	case <-time.After(time.Minute):
		_ = d.cmd.Process.Kill()
		t.Fatalf("fsbd goes on a minute after signal %s\n%s", signal, d.log)
		return nil
	}
}

var build struct {
	once    sync.Once
	err     error
	dir     string
	program string
	hub     *registry.Server
}

func TestMain(m *testing.M) {
	code := m.Run()
	if build.hub != nil {
		_ = build.hub.Close()
	}
	if build.dir != "" {
		_ = os.RemoveAll(build.dir)
	}
	os.Exit(code)
}

func program(t *testing.T) string {
	t.Helper()
	build.once.Do(func() { build.err = prepare() })
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.program
}

func hub(t *testing.T) string {
	t.Helper()
	program(t)
	return build.hub.URL()
}

// prepare makes fsbd and a registry with one image available.
func prepare() (err error) {
	if build.dir, err = os.MkdirTemp("", "fsb-crash-bin-"); err != nil {
		return err
	}
	if build.program = os.Getenv("FSB_TEST_FSBD"); build.program == "" {
		build.program = filepath.Join(build.dir, "fsbd")
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", build.program, "../../cmd/fsbd")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build fsbd: %w\n%s", err, out)
		}
	}
	layout := filepath.Join(build.dir, "busybox")
	if out, err := exec.Command("../images/build.sh", "busybox", layout).CombinedOutput(); err != nil {
		return fmt.Errorf("build image: %w\n%s", err, out)
	}
	if build.hub, err = registry.Open(registry.Options{}); err != nil {
		return err
	}
	return build.hub.PutLayout("library/busybox:latest", layout)
}

// logBuffer keeps the log of one run.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
