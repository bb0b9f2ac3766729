// Package client is the Go client of a Flash Sandbox daemon: a
// [flash.Service] over its REST API.
//
// It keeps no state but a pool of connections, never repeats a request that
// may have had an effect, and turns every answer back into what the daemon's
// own service said: the errors are the same *flash.Error values, chosen by
// their code and never by an HTTP status.
//
//	c, err := client.New("localhost:8080", client.Options{})
//	sb, err := c.Create(ctx, flash.CreateOptions{Image: "alpine:latest", Command: []string{"sleep", "600"}})
//	res, err := c.Exec(ctx, sb.ID, flash.ExecOptions{Command: []string{"echo", "hi"}})
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// DefaultPort is the port of an address that names neither port nor scheme.
const DefaultPort = "8080"

// Options sets up a client. The zero value is ready for use.
type Options struct {
	// HTTPClient sends the requests. Default: one of the client's own, without
	// a timeout (contexts rule), that follows no redirects and keeps up to
	// 128 connections.
	HTTPClient *http.Client
	// APIKey goes out as a bearer token if set.
	APIKey string
	// UserAgent replaces the default "flash-sandbox-go".
	UserAgent string
}

// Client is a flash.Service over the network. It is safe for concurrent use.
type Client struct {
	base string // ends in "/"
	opts Options
	own  *http.Transport // nil if the caller gave the HTTP client
}

var _ flash.Service = (*Client)(nil)

// New returns a client for the daemon at address: "host", "host:port",
// "host:port/prefix" or a URL. Without a scheme it is http; without scheme
// and port the port is [DefaultPort]; a URL without port has its scheme's.
// Nothing is sent. The error is flash.Invalid.
func New(address string, o Options) (*Client, error) {
	base, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, opts: o}
	if c.opts.UserAgent == "" {
		c.opts.UserAgent = "flash-sandbox-go"
	}
	if c.opts.HTTPClient == nil {
		c.own = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConnsPerHost: 128,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		}
		c.opts.HTTPClient = &http.Client{
			Transport:     c.own,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return c, nil
}

// Close drops idle connections of the client's own pool. The client remains usable.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Address returns the URL that all routes are joined to; it ends in "/".
func (c *Client) Address() string { return c.base }

func parseAddress(address string) (string, error) {
	bad := func(why string) (string, error) {
		return "", flash.Errorf(flash.Invalid, "address: %q %s; give host, host:port, host:port/prefix or an http URL", address, why)
	}
	s := strings.TrimSpace(address)
	if s == "" {
		return bad("is empty")
	}
	bare := !strings.Contains(s, "://")
	if bare {
		if host, rest, _ := strings.Cut(s, "/"); strings.Count(host, ":") > 1 && !strings.HasPrefix(host, "[") {
			s = "[" + host + "]/" + rest
		}
		s = "http://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return bad("is not an address")
	case u.Scheme != "http" && u.Scheme != "https":
		return bad("has the scheme " + strconv.Quote(u.Scheme))
	case u.Hostname() == "":
		return bad("has no host")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return bad("has a port outside 1 to 65535")
		}
	} else if bare {
		u.Host = net.JoinHostPort(u.Hostname(), DefaultPort)
	}
	out := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return strings.TrimRight(out.String(), "/") + "/", nil
}

// call sends one request and decodes a successful answer into out, unless out is nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return flash.Errorf(flash.Invalid, "the request can't be written as JSON: %v", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return flash.Errorf(flash.Invalid, "the request can't be made: %v", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json, */*;q=0.5")
	req.Header.Set("User-Agent", c.opts.UserAgent)
	if c.opts.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.opts.APIKey)
	}
	resp, err := c.opts.HTTPClient.Do(req)
	if err != nil {
		return c.transportError(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		return c.answerError(ctx, resp)
	}
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			if ctx.Err() != nil {
				return c.transportError(ctx, err)
			}
			return (&flash.Error{Code: flash.Internal, Reason: "bad_answer", Message: "the answer of " + c.base + " can't be read: " + err.Error()}).WithCause(err)
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is reused
	return nil
}

// transportError describes a request that got no answer.
func (c *Client) transportError(ctx context.Context, err error) error {
	switch ctx.Err() {
	case nil:
	case context.DeadlineExceeded:
		return flash.Errorf(flash.Timeout, "no answer from %s in the time given", c.base).WithCause(context.DeadlineExceeded)
	default:
		return flash.Errorf(flash.Canceled, "the caller left before %s answered", c.base).WithCause(context.Canceled)
	}
	var dial *net.OpError
	var dns *net.DNSError
	if errors.As(err, &dns) || errors.As(err, &dial) && dial.Op == "dial" || errors.Is(err, syscall.ECONNREFUSED) {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return (&flash.Error{Code: flash.Unavailable, Reason: "connection_failed", Message: fmt.Sprintf("can't reach %s: %v", c.base, err), Err: err}).
			WithRemediation("check that fsbd runs and listens there")
	}
	return &flash.Error{
		Code: flash.Internal, Reason: "connection_lost", Err: err,
		Message: "the connection to " + c.base + " broke before the answer had arrived; whether the request had an effect is not known",
	}
}

// answerError rebuilds the error from an answer that is none of 2xx.
func (c *Client) answerError(ctx context.Context, resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil && ctx.Err() != nil {
		return c.transportError(ctx, err)
	}
	var p api.Problem
	if json.Unmarshal(b, &p) == nil && (p.Code != "" || p.Kind != "") {
		p.Status = resp.StatusCode
		return p.Err()
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(b), "\uFFFD"))
	if len(text) > 200 || strings.HasPrefix(text, "<") {
		text = http.StatusText(resp.StatusCode)
	}
	return &flash.Error{
		Code: api.FromHTTPStatus(resp.StatusCode), Reason: "foreign_answer",
		Message: fmt.Sprintf("%s answered with HTTP status %d and no error of ours: %s", c.base, resp.StatusCode, text),
	}
}
