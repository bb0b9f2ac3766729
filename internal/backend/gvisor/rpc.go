package gvisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connection to a sentry's control socket: JSON calls, one at a
// time, that may carry files. It is gVisor's urpc over Go's own sockets, so
// that a call that waits costs no thread and ends with its context.
type conn struct {
	c   *net.UnixConn
	dec *json.Decoder
}

// remoteError is an error that the sentry returned, as opposed to one of the
// connection.
type remoteError struct{ message string }

func (e remoteError) Error() string { return e.message }

// dial connects to the control socket at path.
func dial(ctx context.Context, path string) (*conn, error) {
	if len(path) >= len(unix.RawSockaddrUnix{}.Path) {
		dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		path = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	}
	for wait := 200 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return &conn{c: c.(*net.UnixConn), dec: json.NewDecoder(c)}, nil
		}
		// The sentry's backlog is short, and nothing tells when it has room.
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

func (c *conn) close() { _ = c.c.Close() }

// call makes one call. After an error that is not a remoteError the
// connection is of no more use.
func (c *conn) call(ctx context.Context, method string, arg, result any, files ...*os.File) error {
	if err := c.send(ctx, method, arg, files...); err != nil {
		return err
	}
	return c.receive(ctx, method, result)
}

// bound makes the connection's reads and writes fail once ctx has ended.
func (c *conn) bound(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.c.SetDeadline(time.Unix(1, 0)) })
}

// send is the first half of a call.
func (c *conn) send(ctx context.Context, method string, arg any, files ...*os.File) error {
	data, err := json.Marshal(struct {
		Method string `json:"method"`
		Arg    any    `json:"arg"`
	}{method, arg})
	if err != nil {
		return err
	}
	defer c.bound(ctx)()
	var oob []byte
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		oob = syscall.UnixRights(fds...)
	}
	for len(data) > 0 {
		n, _, err := c.c.WriteMsgUnix(data, oob, nil)
		if err != nil {
			return callError(ctx, method, err)
		}
		data, oob = data[n:], nil
	}
	return nil
}

// receive is the second half of a call.
func (c *conn) receive(ctx context.Context, method string, result any) error {
	defer c.bound(ctx)()
	var reply struct {
		Success bool            `json:"success"`
		Err     string          `json:"err"`
		Result  json.RawMessage `json:"result"`
	}
	if err := c.dec.Decode(&reply); err != nil {
		return callError(ctx, method, err)
	}
	if !reply.Success {
		return remoteError{reply.Err}
	}
	if result == nil || len(reply.Result) == 0 || bytes.Equal(reply.Result, []byte("null")) {
		return nil
	}
	return json.Unmarshal(reply.Result, result)
}

// callError tells a context's end from the sentry's.
func callError(ctx context.Context, method string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", method, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w", method, err)
}

func isRemote(err error) bool {
	var r remoteError
	return errors.As(err, &r)
}

// callOnce makes one call on a connection of its own.
func callOnce(ctx context.Context, path, method string, arg, result any, files ...*os.File) error {
	c, err := dial(ctx, path)
	if err != nil {
		return err
	}
	defer c.close()
	return c.call(ctx, method, arg, result, files...)
}
