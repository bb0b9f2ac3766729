package backendtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

func (s *suite) lifecycleTests() map[string]func(*testing.T) {
	tests := map[string]func(*testing.T){
		"Info":               s.testInfo,
		"CreateExecDestroy":  s.testCreateExecDestroy,
		"DestroyTwice":       s.testDestroyTwice,
		"DestroyDuringExec":  s.testDestroyDuringExec,
		"SameID":             s.testSameID,
		"CancelledBefore":    s.testCancelledBefore,
		"CancelledOnTheWay":  s.testCancelledOnTheWay,
		"BadCommand":         s.testBadCommand,
		"FilesAreSeparate":   s.testFilesAreSeparate,
		"CapabilitiesAgree":  s.testCapabilitiesAgree,
		"CloseLeavesRunning": s.testCloseLeavesRunning,
	}
	if !s.info.SharesHost {
		tests["Isolation"] = s.testIsolation
	}
	return tests
}

func (s *suite) testInfo(t *testing.T) {
	classes := []string{"userspace-kernel", "container", "microvm", "none"}
	if !slices.Contains(classes, s.info.Isolation) {
		t.Errorf("Isolation is %q, want one of %v", s.info.Isolation, classes)
	}
	if s.info.SharesHost != (s.info.Isolation == "none") {
		t.Errorf("SharesHost is %v with isolation %q", s.info.SharesHost, s.info.Isolation)
	}
	for range 2 { // it may be asked again at any time
		if err := s.b.Probe(soon(t)); err != nil {
			t.Errorf("Probe: %v", err)
		}
	}
}

func (s *suite) testCreateExecDestroy(t *testing.T) {
	sp := s.spec(t)
	m, err := s.b.Create(soon(t), sp)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	destroyLater(t, m)
	if h := m.Handle(); h.ID != sp.ID || h.Backend != s.info.Name {
		t.Errorf("Handle is %+v, want id %s and backend %s", h, sp.ID, s.info.Name)
	}
	if st := status(t, m); st != backend.StatusRunning {
		t.Errorf("Status after Create is %s", st)
	}
	if _, ok := s.listed(t, s.b, sp.ID); !ok {
		t.Error("List does not have the machine")
	}
	if out := s.sh(t, m, "echo hello"); out != "hello" {
		t.Errorf("exec says %q", out)
	}
	if err := m.Destroy(soon(t)); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	if _, ok := s.listed(t, s.b, sp.ID); ok {
		t.Error("List still has the destroyed machine")
	}
	_, err = s.b.Attach(soon(t), m.Handle())
	want(t, "Attach to a destroyed machine", err, flash.NotFound)
	if _, err := execer(t, m).Exec(soon(t), shell("true")); err == nil {
		t.Error("Exec in a destroyed machine succeeds")
	}
	if _, err := m.Wait(within(t, quickly)); err != nil {
		t.Errorf("Wait for a destroyed machine: %v", err)
	}
}

func (s *suite) testDestroyTwice(t *testing.T) {
	m := s.machine(t)
	other, err := s.b.Attach(soon(t), m.Handle())
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	errs := make(chan error, 4)
	for _, m := range []backend.Machine{m, m, other, other} { // at once
		go func() { errs <- m.Destroy(soon(t)) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Errorf("Destroy at the same time: %v", err)
		}
	}
	if err := other.Destroy(soon(t)); err != nil { // and one after the other
		t.Errorf("Destroy again: %v", err)
	}
}

func (s *suite) testDestroyDuringExec(t *testing.T) {
	m := s.machine(t)
	var out syncBuffer
	es := shell("echo up; sleep 1000")
	es.Stdout = &out
	p := s.start(t, m, es)
	eventually(t, "the process is up", func() bool { return strings.Contains(out.String(), "up") })
	if err := m.Destroy(soon(t)); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	ctx := within(t, quickly)
	e, err := p.Wait(ctx)
	if ctx.Err() != nil {
		t.Fatal("Wait goes on after Destroy")
	}
	if err == nil && e.Cause != flash.CauseSandboxGone {
		t.Errorf("the exec ended with %+v, want cause %s", e, flash.CauseSandboxGone)
	}
}

func (s *suite) testSameID(t *testing.T) {
	m := s.machine(t)
	_, err := s.b.Create(soon(t), s.spec(t, func(sp *backend.Spec) { sp.ID = m.Handle().ID }))
	want(t, "Create with an id that is in use", err, flash.Exists)
	if out := s.sh(t, m, "echo still here"); out != "still here" {
		t.Errorf("the first machine says %q", out)
	}
}

func (s *suite) testCancelledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	sp := s.spec(t)
	m, err := s.b.Create(ctx, sp)
	if err == nil {
		destroyLater(t, m)
		t.Error("Create with a context that has ended succeeds")
	}
	s.nothingOf(t, sp.ID)
}

// nothingOf checks that a failed Create has left nothing of a machine.
func (s *suite) nothingOf(t *testing.T, id flash.ID) {
	t.Helper()
	if h, ok := s.listed(t, s.b, id); ok {
		t.Errorf("List has %+v of a machine that could not be made", h)
		if m, err := s.b.Attach(soon(t), h); err == nil {
			destroyLater(t, m)
		}
	}
}

func (s *suite) testCancelledOnTheWay(t *testing.T) {
	start := time.Now()
	s.machine(t)
	usual := time.Since(start)
	failed := 0
	for i := range 10 {
		// Spread over the whole of Create, in no order.
		after := time.Duration((float64(i) + rand.Float64()) / 10 * float64(usual))
		ctx, cancel := context.WithTimeout(context.Background(), after)
		sp := s.spec(t)
		m, err := s.b.Create(ctx, sp)
		cancel()
		if err == nil {
			if out := s.sh(t, m, "echo ok"); out != "ok" {
				t.Errorf("a machine made in %s does not work", after)
			}
			if err := m.Destroy(soon(t)); err != nil {
				t.Errorf("Destroy: %v", err)
			}
		} else {
			failed++
		}
		s.nothingOf(t, sp.ID)
	}
	t.Logf("Create takes %s; %d of 10 were cut short", usual, failed)
}

func (s *suite) testBadCommand(t *testing.T) {
	for name, change := range map[string]func(*backend.Spec){
		"no-such-program":  command("no-such-program", "x"),
		"/no/such/program": command("/no/such/program"),
		"/etc/passwd":      command("/etc/passwd"), // exists, and is not executable
		"/etc":             command("/etc"),
		"no-such-user":     func(sp *backend.Spec) { sp.User = "no-such-user" },
	} {
		sp := s.spec(t, change)
		m, err := s.b.Create(soon(t), sp)
		if err == nil {
			destroyLater(t, m)
			t.Errorf("Create with %s succeeds", name)
			continue
		}
		want(t, "Create with "+name, err, flash.Invalid)
		var e *flash.Error
		if errors.As(err, &e) && !strings.Contains(e.Message, name) {
			t.Errorf("the message does not name %s: %q", name, e.Message)
		}
		s.nothingOf(t, sp.ID)
	}
}

func (s *suite) testFilesAreSeparate(t *testing.T) {
	a, b := s.machine(t), s.machine(t)
	s.sh(t, a, "echo a > mine")
	if out := s.sh(t, b, "ls"); strings.Contains(out, "mine") {
		t.Errorf("the second machine sees %q", out)
	}
	s.sh(t, b, "echo b > mine")
	if out := s.sh(t, a, "cat mine"); out != "a" {
		t.Errorf("the first machine's file now holds %q", out)
	}
}

func (s *suite) testIsolation(t *testing.T) {
	a := s.machine(t, func(sp *backend.Spec) { sp.Hostname = "first" })
	b := s.machine(t, func(sp *backend.Spec) { sp.Hostname = "second" })
	s.sh(t, a, "echo a > /tmp/a; echo a > /a; echo a >> /etc/passwd; rm -f /bin/vi; sleep 424242 >/dev/null 2>&1 &")
	if out := s.sh(t, b, "ls /tmp / ; cat /etc/passwd"); slices.Contains(strings.Split(out, "\n"), "a") {
		t.Errorf("the second machine sees what the first has written: %q", out)
	}
	if out := s.sh(t, b, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"); strings.Contains(out, "424242") || !strings.Contains(out, "1000000") {
		t.Errorf("the second machine's processes are %q", out)
	}
	for m, name := range map[backend.Machine]string{a: "first", b: "second"} {
		if out := s.sh(t, m, "hostname"); out != name {
			t.Errorf("hostname says %q, want %q", out, name)
		}
	}
	c := s.machine(t)
	if out := s.sh(t, c, "ls /tmp /"); slices.Contains(strings.Split(out, "\n"), "a") {
		t.Errorf("a new machine sees what another has written: %q", out)
	}
	// The main command may be its victim, where it isn't process 1.
	if _, err := s.try(t, c, shell("kill -9 -1")); err != nil {
		t.Errorf("killing everything inside: %v", err)
	}
	for _, m := range []backend.Machine{a, b} {
		if st := status(t, m); st != backend.StatusRunning {
			t.Errorf("a machine is %s after another has killed all it could", st)
		}
	}
}

// testCapabilitiesAgree checks that a real machine has the methods that the
// sample promised, and no others.
func (s *suite) testCapabilitiesAgree(t *testing.T) {
	m := s.machine(t)
	var now []string
	for name, has := range map[string]func(any) bool{
		backend.CapExec:     is[backend.Execer],
		backend.CapPause:    is[backend.Pauser],
		backend.CapSnapshot: is[backend.Snapshotter],
		backend.CapMetrics:  is[backend.StatsReader],
	} {
		if has(m) {
			now = append(now, name)
		}
		if has(m) != has(s.info.Sample) {
			t.Errorf("%s: the machine has it: %v, the sample: %v", name, has(m), has(s.info.Sample))
		}
	}
	for _, c := range s.caps {
		if c != backend.CapRestore && !slices.Contains(now, c) {
			t.Errorf("the backend says it can %s, its machine has no such method", c)
		}
	}
}

func is[T any](v any) bool {
	_, ok := backend.As[T](v)
	return ok
}

func (s *suite) testCloseLeavesRunning(t *testing.T) {
	b := s.open(t)
	m, err := b.Create(soon(t), s.spec(t))
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	again, err := s.b.Attach(soon(t), m.Handle())
	if err != nil {
		t.Fatalf("Attach after Close: %v", err)
	}
	destroyLater(t, again)
	if out := s.sh(t, again, "echo alive"); out != "alive" {
		t.Errorf("exec after Close says %q", out)
	}
}
