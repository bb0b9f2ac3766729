package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// minAPI is the oldest engine API that has all that is needed: engine 20.10.
const minAPI = "1.41"

// limits are the engine's patience; tests have less.
type limits struct {
	ping    time.Duration // an engine that takes longer for a ping is hung
	suspect time.Duration // a call that takes longer makes us ping
	retry   time.Duration // an engine that failed is left alone for so long
	settle  time.Duration // an ended command's result is asked for so long
	most    time.Duration // shortens every op's deadline; 0: not
}

// engine is a connection to a Docker engine that never holds a caller for
// ever: calls have deadlines, and after a failure all fail fast until the
// engine answers again.
type engine struct {
	configured string
	log        *slog.Logger
	limits     limits

	mu         sync.Mutex
	cli        *client.Client // nil before the first connection
	local      bool           // the engine's process ids are this host's
	down       *flash.Error   // why calls fail now; nil: they don't
	retryAt    time.Time      // when down may be tried again
	connecting chan struct{}  // closed when the attempt under way has ended
	tripped    map[string]*breaker
	closed     bool
}

func newEngine(host string, log *slog.Logger) *engine {
	return &engine{
		configured: host, log: log, tripped: map[string]*breaker{},
		limits: limits{ping: 4 * time.Second, suspect: 3 * time.Second, retry: 2 * time.Second, settle: 10 * time.Second},
	}
}

// where returns the engine's address and whether it runs on this host.
func (e *engine) where() (host string, local bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.host(), e.local
}

func (e *engine) host() string {
	if e.configured != "" {
		return e.configured
	}
	if h := os.Getenv(client.EnvOverrideHost); h != "" {
		return h
	}
	return client.DefaultDockerHost
}

func (e *engine) version() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cli == nil {
		return ""
	}
	return e.cli.ClientVersion()
}

func (e *engine) isLocal() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.local
}

func (e *engine) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

func (e *engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.down = flash.Errorf(flash.Unavailable, "the Docker backend is closed")
	e.retryAt = time.Now().Add(1000 * time.Hour)
	if e.cli != nil {
		_ = e.cli.Close()
	}
}

// client returns a connected client. While the engine is known to be down it
// fails at once, but for the one caller that gets to try again.
func (e *engine) client(ctx context.Context) (*client.Client, error) {
	e.mu.Lock()
	if e.cli != nil && e.down == nil {
		defer e.mu.Unlock()
		return e.cli, nil
	}
	if e.down != nil && (e.connecting != nil || time.Now().Before(e.retryAt)) {
		defer e.mu.Unlock()
		return nil, clone(e.down)
	}
	wait := e.connectLocked()
	e.mu.Unlock()
	return e.await(ctx, wait)
}

// reconnect pings the engine with a fresh connection, whatever is known.
func (e *engine) reconnect(ctx context.Context) error {
	e.mu.Lock()
	if e.closed {
		defer e.mu.Unlock()
		return clone(e.down)
	}
	wait := e.connectLocked()
	e.mu.Unlock()
	_, err := e.await(ctx, wait)
	return err
}

func (e *engine) await(ctx context.Context, wait <-chan struct{}) (*client.Client, error) {
	select {
	case <-wait:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down != nil {
		return nil, clone(e.down)
	}
	return e.cli, nil
}

// connectLocked starts an attempt to connect, or joins the one under way.
func (e *engine) connectLocked() <-chan struct{} {
	if e.connecting != nil {
		return e.connecting
	}
	done := make(chan struct{})
	e.connecting = done
	go func() {
		cli, local, err := e.connect()
		e.mu.Lock()
		defer e.mu.Unlock()
		defer close(done)
		e.connecting = nil
		if e.closed {
			return
		}
		if err != nil {
			e.failLocked(err)
			return
		}
		if e.down != nil {
			e.log.Info("the Docker engine answers again", "host", e.host())
		}
		if e.cli != nil {
			_ = e.cli.Close() // only its idle connections
		}
		e.cli, e.local, e.down = cli, local, nil
	}()
	return done
}

// connect makes a client and negotiates the API version.
func (e *engine) connect() (*client.Client, bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), e.limits.ping)
	defer cancel()
	cli, err := newClient(e.configured)
	if err != nil {
		return nil, false, flash.Errorf(flash.Unavailable, "the Docker engine's address %q or its certificates can't be used: %w", e.host(), err)
	}
	if _, err := cli.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		_ = cli.Close()
		return nil, false, e.pingError(ctx, err)
	}
	if v := cli.ClientVersion(); versions.LessThan(v, minAPI) {
		_ = cli.Close()
		return nil, false, flash.Errorf(flash.Unavailable, "the Docker engine at %s speaks API %s; %s or later (engine 20.10) is needed", e.host(), v, minAPI)
	}
	return cli, sameProcesses(ctx, cli), nil
}

// newClient makes a client without talking to the engine.
func newClient(host string) (*client.Client, error) {
	opts := []client.Opt{client.WithAPIVersionFromEnv(), client.WithUserAgent("flash-sandbox")}
	certs := os.Getenv(client.EnvOverrideCertPath)
	if certs != "" && os.Getenv(client.EnvTLSVerify) == "" {
		opts = append(opts, client.WithTLSClientConfigFromEnv()) // encrypted, not verified
	} else {
		// Many calls at a time are usual; the default keeps two connections.
		// The dialer keeps net/http from preparing for HTTP/2, which would make
		// the client take the address for one with TLS.
		dialer := &net.Dialer{Timeout: 10 * time.Second}
		opts = append(opts, client.WithHTTPClient(&http.Client{
			Transport: &http.Transport{
				DialContext: dialer.DialContext, MaxIdleConns: 64, MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second,
			},
			CheckRedirect: client.CheckRedirect,
		}))
	}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	} else if h := os.Getenv(client.EnvOverrideHost); h != "" {
		opts = append(opts, client.WithHost(h))
	} else {
		opts = append(opts, client.WithHost(client.DefaultDockerHost))
	}
	if certs != "" && os.Getenv(client.EnvTLSVerify) != "" {
		opts = append(opts, client.WithTLSClientConfig(
			filepath.Join(certs, "ca.pem"), filepath.Join(certs, "cert.pem"), filepath.Join(certs, "key.pem")))
	}
	return client.New(opts...)
}

// fail notes that the engine is down.
func (e *engine) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failLocked(err)
}

func (e *engine) failLocked(err error) {
	if e.closed {
		return
	}
	if e.down == nil {
		e.log.Warn("the Docker engine does not answer", "host", e.host(), "err", err)
	}
	e.down = asUnavailable("reach the Docker engine", err)
	e.retryAt = time.Now().Add(e.limits.retry)
}

// alive pings the engine over its present connection.
func (e *engine) alive(c *client.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), e.limits.ping)
	defer cancel()
	if _, err := c.Ping(ctx, client.PingOptions{}); err != nil {
		return e.pingError(ctx, err)
	}
	return nil
}

func (e *engine) pingError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return flash.Errorf(flash.Unavailable, "the Docker engine at %s does not answer within %s", e.host(), e.limits.ping).
			WithRemediation("restart the engine if it stays so")
	}
	return unreachable(e.host(), err)
}

func clone(e *flash.Error) *flash.Error {
	c := *e
	return &c
}

func unreachable(host string, err error) *flash.Error {
	e := flash.Errorf(flash.Unavailable, "the Docker engine at %s can't be reached", host).
		WithCause(err).WithRemediation("start the engine, or set FSB_DOCKER_HOST to where it listens")
	if errors.Is(err, os.ErrPermission) || errors.Is(errors.Unwrap(err), os.ErrPermission) {
		e.Message = fmt.Sprintf("the Docker engine's socket %s may not be opened by this user", host)
		e.Remediation = "run as root or as a member of the socket's group"
	}
	return e
}
