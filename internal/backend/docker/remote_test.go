package docker_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/backendtest"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/docker"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

// relay makes the engine's unix socket reachable over TCP, as a remote engine
// is: nothing of it can be seen on this host.
func relay(t *testing.T, host string) string {
	t.Helper()
	network, addr, _ := strings.Cut(host, "://")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial(network, addr)
			if err != nil {
				_ = in.Close()
				continue
			}
			wg.Go(func() { join(in, out) })
		}
	})
	return "tcp://" + l.Addr().String()
}

// join copies both ways, half-closing what the other side has half-closed.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			// Bare, since the kernel's way of copying keeps pipes open for later.
			_, _ = io.Copy(struct{ io.Writer }{pair[0]}, struct{ io.Reader }{pair[1]})
			if c, ok := pair[0].(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite()
			}
		})
	}
	wg.Wait()
	_, _ = a.Close(), b.Close()
}

// TestRemote holds the backend to the suite where it can only use the engine's API.
func TestRemote(t *testing.T) {
	testenv.Require(t, testenv.Docker)
	host := relay(t, testenv.DockerHost())
	owner := fmt.Sprintf("test-remote-%d", os.Getpid())
	imgs := newImages(t)
	imgs.get(t, "busybox")
	b := docker.New(docker.Config{Host: host, Owner: owner})
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info := b.Info(); info.Facts["local"] != "false" || !strings.Contains(strings.Join(info.Notes, " "), "needs sh and grep") {
		t.Errorf("Info of a remote engine: %+v", info)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	backendtest.Run(t, backendtest.Subject{
		New: func(testing.TB) backend.Backend {
			return docker.New(docker.Config{Host: host, Owner: owner, Logger: logger()})
		},
		Image: imgs.get, Arg: strings.Join([]string{owner, imgs.dir, host, ""}, "|"), Marks: []string{owner},
	})
}
