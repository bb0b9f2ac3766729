package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAddress(t *testing.T) {
	for address, want := range map[string]string{
		"localhost":                      "http://localhost:8080/",
		"localhost:9":                    "http://localhost:9/",
		" 10.0.0.1:9 ":                   "http://10.0.0.1:9/",
		"host/prefix":                    "http://host:8080/prefix/",
		"host:8092/v1/service/sandbox":   "http://host:8092/v1/service/sandbox/",
		"http://host/v1/":                "http://host/v1/",
		"http://host:8092//":             "http://host:8092/",
		"https://host":                   "https://host/",
		"http://user:pw@host:1/a?b=c#d":  "http://host:1/a/",
		"::1":                            "http://[::1]:8080/",
		"[::1]":                          "http://[::1]:8080/",
		"[::1]:9":                        "http://[::1]:9/",
		"http://[::1]:9/p":               "http://[::1]:9/p/",
		"http://sandboxes.example.com:1": "http://sandboxes.example.com:1/",
	} {
		c, err := client.New(address, client.Options{})
		if err != nil {
			t.Errorf("%q: %v", address, err)
		} else if c.Address() != want {
			t.Errorf("%q is read as %s, want %s", address, c.Address(), want)
		}
	}
	for _, address := range []string{"", "  ", "ftp://host", "unix:///run/x", "http://", "host:port", "host:0", "host:70000", "http://a b", ":8080", "/path", "[::1"} {
		if c, err := client.New(address, client.Options{}); !errors.Is(err, flash.Invalid) || !strings.HasPrefix(err.Error(), "address:") {
			t.Errorf("%q: %v %v", address, c, err)
		}
	}
}

func open(t *testing.T, h http.HandlerFunc, o client.Options) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(s.URL+"/base", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Answers that no daemon of ours gives become errors that say so.
func TestForeignAnswers(t *testing.T) {
	for _, c := range []struct {
		status     int
		kind, body string
		code       flash.Code
		word       string
	}{
		{502, "text/html", "<html>Bad Gateway</html>", flash.Unavailable, "Bad Gateway"},
		{404, "text/plain", "404 page not found", flash.NotFound, "404 page not found"},
		{401, "", "", flash.Unauthenticated, "401"},
		{302, "", "", flash.Internal, "302"},
		{418, "application/json", `{"error":"teapot"}`, flash.Invalid, "418"},
		{500, "application/problem+json", `{"code":"odd"}`, flash.Internal, "500"},
		{409, "application/problem+json", `{"code":"taken","kind":"exists","detail":"it is"}`, flash.Exists, "it is"},
		{200, "application/json", `{"id":`, flash.Internal, "can't be read"},
		{200, "text/html", `<html>`, flash.Internal, "can't be read"},
	} {
		cl := open(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			if c.status == 302 {
				w.Header().Set("Location", "/elsewhere")
			}
			w.WriteHeader(c.status)
			_, _ = fmt.Fprint(w, c.body)
		}, client.Options{})
		_, err := cl.Get(t.Context(), "sb-1")
		if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
		if errors.Is(err, flash.NotFound) && flash.AsError(err).Reason == "sandbox_not_found" {
			t.Errorf("a foreign 404 is taken for a lost sandbox")
		}
	}
}

func TestRequest(t *testing.T) {
	var got *http.Request
	cl := open(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		_, _ = fmt.Fprint(w, `{"id":"sb-1","status":"running"}`)
	}, client.Options{APIKey: "k"})
	if _, err := cl.Create(t.Context(), flash.CreateOptions{Image: "x"}); err != nil {
		t.Fatal(err)
	}
	if got.URL.Path != "/base/sandboxes" || got.Header.Get("Authorization") != "Bearer k" || got.Header.Get("Content-Type") != "application/json" ||
		!strings.Contains(got.Header.Get("Accept"), "application/json") || got.Header.Get("User-Agent") != "flash-sandbox-go" {
		t.Errorf("%s %v", got.URL, got.Header)
	}
	if err := cl.Delete(t.Context(), "sb-1", flash.DeleteOptions{Keep: true}); err != nil || got.URL.RequestURI() != "/base/sandboxes/sb-1?cleanup=false" || got.ContentLength != 0 {
		t.Errorf("%v: %s", err, got.URL)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(addr, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.List(t.Context())
	if e := flash.AsError(err); e.Code != flash.Unavailable || !strings.Contains(e.Message, addr) || e.Remediation == "" {
		t.Errorf("%+v", e)
	}
}

// A connection that breaks leaves open whether the request had an effect, so
// it must not look like something to be repeated.
func TestConnectionBreaks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_ = conn.Close()
		}
	}()
	c, err := client.New(l.Addr().String(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Exec(t.Context(), "sb-1", flash.ExecOptions{Command: []string{"x"}})
	if e := flash.AsError(err); e.Code != flash.Internal || e.Reason != "connection_lost" {
		t.Errorf("%+v", e)
	}
	_ = l.Close()
	<-served
}

func TestContext(t *testing.T) {
	cl := open(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, client.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := cl.Get(ctx, "sb-1"); !errors.Is(err, flash.Timeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := cl.Get(ctx, "sb-1"); !errors.Is(err, flash.Canceled) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Ids that are no ids never reach the network, where they might name another route.
func TestOddIDs(t *testing.T) {
	cl := open(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("sent %s", r.URL) }, client.Options{})
	for _, id := range []flash.ID{"..", "a/b", "a?b", "%2e", "a b"} {
		if _, err := cl.Get(t.Context(), id); !errors.Is(err, flash.NotFound) {
			t.Errorf("%q: %v", id, err)
		}
		if err := cl.DeleteSnapshot(t.Context(), id); !errors.Is(err, flash.NotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := cl.Delete(t.Context(), "", flash.DeleteOptions{}); !errors.Is(err, flash.Invalid) {
		t.Error(err)
	}
}
