package backendtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

func (s *suite) attachTests() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"AttachEnded":          s.testAttachEnded,
		"AttachUnknown":        s.testAttachUnknown,
		"AttachFromSecond":     s.testAttachFromSecond,
		"MakerDies":            s.testMakerDies,
		"ListedCanBeDestroyed": s.testListedCanBeDestroyed,
		"WaitIsPatient":        s.testWaitIsPatient,
	}
}

func (s *suite) testAttachEnded(t *testing.T) {
	m := s.machine(t, command("sh", "-c", "exit 43"))
	if e := end(t, m); e.Cause != flash.CauseExited || e.ExitCode != 43 {
		t.Errorf("Wait says %+v, want exited with 43", e)
	}
	b := s.open(t)
	defer func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	again, err := b.Attach(soon(t), m.Handle())
	if err != nil {
		t.Fatalf("Attach to an ended machine: %v", err)
	}
	for name, m := range map[string]backend.Machine{"first": m, "second": again} {
		if st := status(t, m); st != backend.StatusEnded {
			t.Errorf("%s: Status of an ended machine is %s", name, st)
		}
		if e := end(t, m); e.Cause != flash.CauseExited || e.ExitCode != 43 {
			t.Errorf("%s: Wait after the end says %+v, want exited with 43", name, e)
		}
		_, err := execer(t, m).Exec(soon(t), shell("true"))
		want(t, name+": Exec in an ended machine", err, flash.Conflict)
	}
}

func (s *suite) testAttachUnknown(t *testing.T) {
	m := s.machine(t)
	h := m.Handle()
	if err := m.Destroy(soon(t)); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	b := s.open(t)
	_, err := b.Attach(soon(t), h)
	want(t, "Attach by the handle of a destroyed machine", err, flash.NotFound)
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// testAttachFromSecond lets a second process, which has nothing but the
// handle, work in a machine and learn how it ends.
func (s *suite) testAttachFromSecond(t *testing.T) {
	m := s.machine(t, command("sh", "-c", "until [ -e stop ]; do sleep 0.1; done; exit 43"))
	h := m.Handle()
	rp := s.second(t, request{Attach: &h, Exec: []string{"sh", "-c", "echo from second; touch stop"}, Wait: true})
	if rp.Code != "" || rp.Stdout != "from second\n" {
		t.Errorf("the second process replies %+v", rp)
	}
	if rp.Ending == nil || rp.Ending.Cause != flash.CauseExited || rp.Ending.ExitCode != 43 {
		t.Errorf("the second process sees the machine end with %+v, want exited with 43", rp.Ending)
	}
	if e := end(t, m); e.Cause != flash.CauseExited || e.ExitCode != 43 {
		t.Errorf("the first process sees %+v, want exited with 43", e)
	}
	if err := m.Destroy(soon(t)); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	if rp := s.second(t, request{Attach: &h}); rp.Code != flash.NotFound {
		t.Errorf("the second process attaches to a destroyed machine with %+v, want not_found", rp)
	}
}

// testMakerDies lets a second process make a machine and die: the machine
// stays, and its later exit code is known here.
func (s *suite) testMakerDies(t *testing.T) {
	sp := s.spec(t, command("sh", "-c", "until [ -e stop ]; do sleep 0.1; done; exit 7"))
	sp.Image = nil // the second process has its own
	rp := s.second(t, request{Create: &sp})
	m, err := s.b.Attach(soon(t), *rp.Handle)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	destroyLater(t, m)
	if st := status(t, m); st != backend.StatusRunning {
		t.Errorf("Status is %s, want running", st)
	}
	s.sh(t, m, "touch stop")
	if e := end(t, m); e.Cause != flash.CauseExited || e.ExitCode != 7 {
		t.Errorf("Wait says %+v, want exited with 7", e)
	}
}

func (s *suite) testListedCanBeDestroyed(t *testing.T) {
	m := s.machine(t)
	b := s.open(t)
	defer func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	h, ok := s.listed(t, b, m.Handle().ID)
	if !ok {
		t.Fatal("a second Backend does not list the machine")
	}
	again, err := b.Attach(soon(t), h)
	if err != nil {
		t.Fatalf("Attach by a handle of List: %v", err)
	}
	if err := again.Destroy(soon(t)); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	if _, ok := s.listed(t, b, h.ID); ok {
		t.Error("List still has it")
	}
	if _, err := m.Wait(within(t, quickly)); err != nil {
		t.Errorf("Wait of the first Backend's machine goes on: %v", err)
	}
}

func (s *suite) testWaitIsPatient(t *testing.T) {
	m := s.machine(t)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait with a deadline says %v", err)
	}
	if st := status(t, m); st != backend.StatusRunning {
		t.Errorf("Status after a Wait that was given up is %s", st)
	}
	ends := make(chan flash.Ending, 3)
	for range cap(ends) {
		go func() {
			e, err := m.Wait(soon(t))
			if err != nil {
				e.Message = err.Error()
			}
			ends <- e
		}()
	}
	if err := m.Destroy(soon(t)); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	for range cap(ends) {
		if e := <-ends; e.Cause == "" || e.Cause == flash.CauseExited || strings.Contains(e.Message, "deadline") {
			t.Errorf("one of three Waits says %+v", e)
		}
	}
}
