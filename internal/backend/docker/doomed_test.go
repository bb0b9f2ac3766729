package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// TestReplayedCreate has a create hang and its replay succeed: the clean-up
// after the first must not take the second's container.
func TestReplayedCreate(t *testing.T) {
	e, b := toyEngine(t)
	e.first("create", hang)
	_, err := b.Create(t.Context(), toySpec)
	wantUnavailable(t, "a create that hangs", err, "create call")
	b.letBreakersPass()
	m := b.toyMachine(t)
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids := e.ids(); !slices.Equal(ids, []string{m.cid}) {
		t.Errorf("after a Probe there are containers %v, want only %s", ids, m.cid)
	}
}

// TestLateCreate has the engine finish a create that was given up.
func TestLateCreate(t *testing.T) {
	e, b := toyEngine(t)
	late := func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		<-r.Context().Done()
		r.Body = io.NopCloser(bytes.NewReader(body))
		e.mu.Lock()
		defer e.mu.Unlock()
		e.create(nil, r)
	}
	for _, how := range []string{"probe", "replay"} {
		e.first("create", late)
		_, err := b.Create(t.Context(), toySpec)
		wantUnavailable(t, "a create that hangs", err, "create call")
		b.letBreakersPass()
		if n := len(e.ids()); n != 1 {
			t.Fatalf("the toy made %d containers late, want 1", n)
		}
		want := []string{}
		if how == "replay" {
			want = []string{b.toyMachine(t).cid}
		}
		if err := b.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if ids := e.ids(); !slices.Equal(ids, want) {
			t.Errorf("%s: there are containers %v, want %v", how, ids, want)
		}
	}
}

// TestCreateRefusedIsGone cancels creates about when they end: what is not
// handed out does not stay.
func TestCreateRefusedIsGone(t *testing.T) {
	e, b := toyEngine(t)
	made := 0
	for i := range 3000 {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(time.Duration(30+i%300)*time.Microsecond, cancel)
		m, err := b.Create(ctx, toySpec)
		timer.Stop()
		cancel()
		if err == nil {
			made++
			err := m.Destroy(t.Context())
			if err != nil {
				t.Fatal(err)
			}
		} else if ids := e.ids(); len(ids) > 0 {
			t.Fatalf("create %d failed with %v and left %v", i, err, ids)
		}
	}
	t.Logf("%d creates were in time", made)
}

// TestCancelAfterInit cancels a create that had to be tried again without
// docker-init.
func TestCancelAfterInit(t *testing.T) {
	e, b := toyEngine(t)
	b.noInit = false
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e.set(func(kind string, w http.ResponseWriter, _ *http.Request) bool {
		if kind != "start" {
			return false
		}
		if !b.withoutInit() {
			reply(w, 500, map[string]string{"message": `exec: "docker-init": executable file not found in $PATH`})
			return true
		}
		cancel()
		return false
	})
	if _, err := b.Create(ctx, toySpec); !errors.Is(err, context.Canceled) {
		t.Errorf("Create: %v, want that it was cancelled", err)
	}
	if made, ids := e.count("create"), e.ids(); made != 2 || len(ids) > 0 {
		t.Errorf("%d creates, of which %v are left, want 2 and none", made, ids)
	}
}

// TestExecOutcomeUnknown breaks the connection off when the command may have
// started. Clients run again what is unavailable.
func TestExecOutcomeUnknown(t *testing.T) {
	e, b := toyEngine(t)
	m := b.toyMachine(t)
	e.first("attach", func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = c.Close()
		}
	})
	_, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"pay"}})
	if errors.Is(err, flash.Unavailable) || !outcomeUnknown(err) || !strings.Contains(flash.AsError(err).Message, "may have run") {
		t.Errorf("exec: %v, want outcome_unknown", err)
	}
	if n := e.count("attach"); n != 2 { // the second is the helper that kills
		t.Errorf("%d commands were started, want the command and the helper that kills it", n)
	}
	e.first("exec", hang)
	_, err = m.Exec(t.Context(), backend.ExecSpec{Args: []string{"pay"}})
	wantUnavailable(t, "exec that was never started", err, "exec call")
}

// TestResultAfterHang ends a command while the engine does not tell its result.
func TestResultAfterHang(t *testing.T) {
	e, b := toyEngine(t)
	m := b.toyMachine(t)
	start := time.Now()
	e.set(func(kind string, w http.ResponseWriter, r *http.Request) bool {
		switch kind {
		case "attach":
			_, _ = io.Copy(io.Discard, r.Body)
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return true
			}
			frame := binary.BigEndian.AppendUint32([]byte{1, 0, 0, 0}, 3)
			_, _ = fmt.Fprintf(c, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n%shi\n", frame)
			_ = c.Close()
		case "result":
			if time.Since(start) < 700*time.Millisecond {
				hang(w, r)
				return true
			}
			reply(w, 200, map[string]any{"ID": "e1", "Running": false, "ExitCode": 3, "Pid": 5})
		default:
			return false
		}
		return true
	})
	var out bytes.Buffer
	p, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{"true"}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	if end, err := p.Wait(t.Context()); err != nil || end.ExitCode != 3 || out.String() != "hi\n" {
		t.Errorf("the command ended with %+v, %v and %q, want 3 and hi", end, err, out.String())
	}
}

// TestSnapshotCancelled leaves a commit under way.
func TestSnapshotCancelled(t *testing.T) {
	e, b := toyEngine(t)
	m := b.toyMachine(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	committed := make(chan struct{})
	e.first("commit", func(w http.ResponseWriter, r *http.Request) {
		defer close(committed)
		cancel()
		time.Sleep(50 * time.Millisecond)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.commit(r)
		reply(w, 201, map[string]string{"Id": "sha256:1"})
	})
	if _, err := m.Snapshot(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("Snapshot: %v, want that it was cancelled", err)
	}
	<-committed
	if len(e.images) > 0 {
		t.Errorf("images are left: %v", e.images)
	}
}

// TestLateCommit has the engine finish a commit that was given up.
func TestLateCommit(t *testing.T) {
	e, b := toyEngine(t)
	m := b.toyMachine(t)
	dir := t.TempDir()
	e.first("commit", hang)
	_, err := m.Snapshot(t.Context(), dir)
	wantUnavailable(t, "a commit that hangs", err, "commit call")
	e.mu.Lock()
	e.images[b.snapshotTag(dir)] = true
	e.mu.Unlock()
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(e.images) > 0 {
		t.Errorf("images are left: %v", e.images)
	}
	b.letBreakersPass()
	if _, err := m.Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(e.images) != 1 {
		t.Errorf("a good snapshot's image has gone with the late one's")
	}
}

// TestHungRemove has removes hang that are ended by their caller: soon none is
// tried any more. One container alone holds nobody else up.
func TestHungRemove(t *testing.T) {
	e, b := toyEngine(t)
	b.engine.limits.most = 900 * time.Millisecond
	e.set(func(kind string, w http.ResponseWriter, r *http.Request) bool {
		if kind == "remove" {
			hang(w, r)
		}
		return kind == "remove"
	})
	b.engine.limits.retry = time.Minute
	destroy := func(cid string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		return (&Machine{b: b, id: "x", cid: cid}).Destroy(ctx)
	}
	if err := destroy("a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first remove: %v, want the deadline's end", err)
	}
	wantUnavailable(t, "the second remove of the same container", destroy("a"), "remove call hang")
	if err := destroy("b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first remove of another: %v, want the deadline's end", err)
	}
	for _, cid := range []string{"c", "d", "e"} {
		wantUnavailable(t, "a remove after two that hung", destroy(cid), "remove call hang")
	}
	if n := e.count("remove"); n != 2 {
		t.Errorf("the engine was asked %d times, want 2", n)
	}
}
