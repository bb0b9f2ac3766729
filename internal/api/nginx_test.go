package api_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/api/servicetest"
	"github.com/flash-sandbox/flash-sandbox/internal/server"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

const prefix = "/v1/service/sandbox"

// Behind a real nginx, one that strips the prefix and one that passes it on,
// REST and gRPC clients see the same service.
func TestServiceBehindNginx(t *testing.T) {
	testenv.Require(t, testenv.Nginx)
	for _, c := range []struct {
		name  string
		strip bool
	}{{"strips the prefix", true}, {"passes the prefix on", false}} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, openManager(t), func(o *server.Options) {
				o.BasePaths = nil
				if !c.strip {
					o.BasePaths = []string{prefix}
				}
			})
			rest, grpc := openNginx(t, srv, c.strip)
			t.Run("REST", func(t *testing.T) {
				s := subject()
				s.Sandboxes, s.Text, s.Remote = restClient(t, rest+prefix), true, true
				servicetest.Run(t, s)
			})
			t.Run("RPC", func(t *testing.T) {
				s := subject()
				s.Sandboxes, s.Text, s.Remote, s.Narrow = rpcClient(t, "http://"+grpc+prefix), true, true, true
				servicetest.Run(t, s)
			})
		})
	}
}

// openNginx runs an nginx of its own, on loopback, in a folder of its own, and
// returns its addresses for HTTP/1.1 and for gRPC.
func openNginx(t *testing.T, srv *server.Server, strip bool) (string, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	rest, grpc := freeAddr(t), freeAddr(t)
	proxy := "proxy_pass http://" + srv.HTTPAddr() + ";"
	call := "grpc_pass grpc://" + srv.GRPCAddr() + ";"
	if strip {
		proxy = "proxy_pass http://" + srv.HTTPAddr() + "/;"
		call = "rewrite ^" + prefix + "/(.*)$ /$1 break; " + call
	}
	conf := fmt.Sprintf(`daemon off;
user root;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log warn;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	client_max_body_size 8m;
	proxy_http_version 1.1;
	proxy_set_header Connection "";
	server {
		listen %[2]s;
		location %[4]s/ { %[5]s }
	}
	server {
		listen %[3]s http2;
		location %[4]s/ { %[6]s }
	}
}
`, dir, rest, grpc, prefix, proxy, call)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("nginx", "-p", dir, "-c", file, "-e", filepath.Join(dir, "start.log"))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("nginx did not end")
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("nginx: %s%s", out.Bytes(), log)
		}
	})
	for _, addr := range []string{rest, grpc} {
		waitFor(t, addr, ended, &out)
	}
	return rest, grpc
}

func waitFor(t *testing.T, addr string, ended chan error, out *bytes.Buffer) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case end := <-ended:
			t.Fatalf("nginx ended: %v %s", end, out.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen on %s: %v", addr, err)
		}
	}
}

// freeAddr returns a loopback address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return addr
}
