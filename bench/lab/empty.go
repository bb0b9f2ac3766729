package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// EmptyCommand is the argument that makes the benchmark's program run
// ServeEmpty instead.
const EmptyCommand = "serve-empty"

// ServeEmpty serves an empty handler on a free loopback port, writes its URL
// to stdout, and ends at the end of stdin: what any HTTP server in Go can do
// here, in a process of its own as fsbd is.
func ServeEmpty() error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	fmt.Println("http://" + lis.Addr().String())
	if err := server.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Empty starts a server with an empty handler and returns its URL.
func (l *Lab) Empty(ctx context.Context) (string, error) {
	return l.idle.get(func() (string, error) { return l.startEmpty(ctx) })
}

func (l *Lab) startEmpty(context.Context) (string, error) {
	cmd := exec.Command("/proc/self/exe", EmptyCommand) // by this name also when it has no other
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	l.onClose("empty server", func(context.Context) error {
		_ = stdin.Close()
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		return cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	return strings.TrimSpace(line), err
}
