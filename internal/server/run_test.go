package server_test

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

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
	"github.com/flash-sandbox/flash-sandbox/internal/api/rpc"
	"github.com/flash-sandbox/flash-sandbox/internal/server"
)

// What does not end in time is cancelled, and answered in a way that no client
// takes for a request that never was.
func TestDrainDeadline(t *testing.T) {
	svc := newService()
	svc.kill = 300 * time.Millisecond
	s, end := open(t, svc, func(o *server.Options) { o.DrainTimeout = 200 * time.Millisecond })
	clients := httpClients(t)
	got := make(chan answer, len(clients))
	for _, c := range clients {
		go func() {
			got <- send(t, c, "POST", "http://"+s.HTTPAddr()+"/sandboxes/sb-1/exec", `{"command":["wait"]}`)
		}()
		<-svc.begun
	}
	tr := rpc.Transport()
	defer tr.CloseIdleConnections()
	gotRPC := make(chan error, 1)
	go func() {
		_, err := rpc.NewClient("http://"+s.GRPCAddr(), &http.Client{Transport: tr}).Exec(t.Context(), "sb-1", flash.ExecOptions{Command: []string{"wait"}})
		gotRPC <- err
	}()
	<-svc.begun
	if err := end(); err != nil {
		t.Error(err)
	}
	if n := len(svc.left); n != 3 {
		t.Errorf("run returned when %d of 3 handlers had", n)
	}
	for range clients {
		a := <-got
		if a.status != 500 || a.code(t) != api.ReasonInterrupted || !strings.Contains(a.body, `"outcome":"uncertain"`) || !strings.Contains(a.body, "the daemon was stopped") {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if e := flash.AsError(<-gotRPC); e.Code != flash.Internal || e.Reason != api.ReasonInterrupted {
		t.Errorf("gRPC: %#v", e)
	}
}

// stubborn has handlers that don't mind their contexts.
type stubborn struct {
	*service
}

func (s stubborn) Exec(context.Context, flash.ID, flash.ExecOptions) (*flash.ExecResult, error) {
	s.begun <- struct{}{}
	<-s.release
	return nil, errors.New("late")
}

// A handler that does not return is waited for, but not for ever, and told.
func TestDrainEnds(t *testing.T) {
	svc := stubborn{newService()}
	s, err := server.New(server.Options{
		HTTPAddr: "127.0.0.1:0", Service: svc, DrainTimeout: 50 * time.Millisecond, CancelTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	conn, err := net.Dial("tcp", s.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprint(conn, "POST /sandboxes/sb-1/exec HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"command\":[\"wait\"]}")
	<-svc.begun
	cancel()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "1 requests") {
			t.Errorf("run: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("run does not return")
	}
	close(svc.release)
}

// While commands are being killed, what is new is refused as what never was.
func TestRefusedWhileCancelled(t *testing.T) {
	svc := newService()
	svc.kill = time.Second
	s, end := open(t, svc, func(o *server.Options) { o.DrainTimeout = 10 * time.Millisecond })
	c := httpClients(t)["HTTP/1.1"]
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/sandboxes/sb-1/exec", strings.NewReader(`{"command":["wait"]}`))
		if err != nil {
			t.Error(err)
			return
		}
		if resp, err := c.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-svc.begun
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	for !s.Draining() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond)
	for _, method := range []string{"GET", "POST"} {
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, httptest.NewRequest(method, "/sandboxes/sb-1/exec", nil))
		if a := (answer{status: rec.Code, body: rec.Body.String()}); a.status != 503 || a.code(t) != "draining" {
			t.Errorf("%s: %d %s", method, a.status, a.body)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
