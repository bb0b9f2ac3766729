// Package storetest is the suite that every store.Store passes. It proves what
// the contract in package store says; what is special to one implementation
// (files, damage, full disks) is tested beside it.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Store { return memory.New() })
//	}
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// Run runs the suite. open returns an empty store of the test's own; the suite
// closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, st store.Store)
	}{
		{"Empty", testEmpty},
		{"SandboxRoundTrip", testSandboxRoundTrip},
		{"SandboxFull", testSandboxFull},
		{"SandboxUpdateKeepsAll", testSandboxUpdateKeepsAll},
		{"SandboxTaken", testSandboxTaken},
		{"SandboxRevision", testSandboxRevision},
		{"SandboxRace", testSandboxRace},
		{"SandboxDelete", testSandboxDelete},
		{"SandboxOrder", testSandboxOrder},
		{"SharesNoMemory", testSharesNoMemory},
		{"NotText", testNotText},
		{"NotJSON", testNotJSON},
		{"SnapshotRoundTrip", testSnapshotRoundTrip},
		{"SnapshotFull", testSnapshotFull},
		{"SnapshotTaken", testSnapshotTaken},
		{"SnapshotOrderAndDelete", testSnapshotOrderAndDelete},
		{"Graves", testGraves},
		{"ContextEnded", testContextEnded},
		{"Closed", testClosed},
		{"Concurrent", testConcurrent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			st := open(t)
			defer st.Close() //nolint:errcheck // testClosed has looked at it
			test.run(t, st)
		})
	}
}

func testEmpty(t *testing.T, st store.Store) {
	if got := sandboxes(t, st); len(got) != 0 {
		t.Errorf("a new store holds %d sandboxes", len(got))
	}
	if got := snapshots(t, st); len(got) != 0 {
		t.Errorf("a new store holds %d snapshots", len(got))
	}
	if got := graves(t, st); len(got) != 0 {
		t.Errorf("a new store holds %d graves", len(got))
	}
}

// testSandboxRoundTrip: whatever is inserted comes back the same.
func testSandboxRoundTrip(t *testing.T, st store.Store) {
	sandboxProperty(t, st, false)
}

// testSandboxFull: no field is forgotten.
func testSandboxFull(t *testing.T, st store.Store) {
	sandboxProperty(t, st, true)
}

func sandboxProperty(t *testing.T, st store.Store, full bool) {
	rapid.Check(t, func(rt *rapid.T) {
		want := draw[store.Sandbox](rt, full, "sandbox")
		must(rt, st.InsertSandbox(ctx(), want))
		defer func() { must(rt, st.DeleteSandbox(ctx(), want.ID)) }()
		if want.Rev != 1 {
			rt.Errorf("Rev after the insert = %d, want 1", want.Rev)
		}
		got := sandboxes(rt, st)
		if diff := cmp.Diff([]*store.Sandbox{want}, got); diff != "" {
			rt.Errorf("what was inserted differs from what came back (-want +got):\n%s", diff)
		}
	})
}

func testSandboxUpdateKeepsAll(t *testing.T, st store.Store) {
	rapid.Check(t, func(rt *rapid.T) {
		first := draw[store.Sandbox](rt, false, "first")
		must(rt, st.InsertSandbox(ctx(), first))
		defer func() { must(rt, st.DeleteSandbox(ctx(), first.ID)) }()
		want := draw[store.Sandbox](rt, true, "second")
		want.ID, want.Rev = first.ID, first.Rev
		must(rt, st.UpdateSandbox(ctx(), want))
		if want.Rev != 2 {
			rt.Errorf("Rev after one update = %d, want 2", want.Rev)
		}
		if diff := cmp.Diff([]*store.Sandbox{want}, sandboxes(rt, st)); diff != "" {
			rt.Errorf("after the update (-want +got):\n%s", diff)
		}
	})
}

func testSandboxTaken(t *testing.T, st store.Store) {
	first := sandbox("sb-one")
	must(t, st.InsertSandbox(ctx(), first))
	second := sandbox("sb-one")
	second.Image = "other"
	wantCode(t, st.InsertSandbox(ctx(), second), flash.Exists)
	if diff := cmp.Diff([]*store.Sandbox{first}, sandboxes(t, st)); diff != "" {
		t.Errorf("the refused insert changed the record (-want +got):\n%s", diff)
	}
}

func testSandboxRevision(t *testing.T, st store.Store) {
	wantCode(t, st.UpdateSandbox(ctx(), sandbox("sb-nobody")), flash.NotFound)

	s := sandbox("sb-one")
	must(t, st.InsertSandbox(ctx(), s))
	stale := *s
	s.State = flash.Running
	must(t, st.UpdateSandbox(ctx(), s))
	stale.State = flash.Failed
	wantCode(t, st.UpdateSandbox(ctx(), &stale), flash.Conflict)
	if stale.Rev != 1 {
		t.Errorf("a refused update changed Rev to %d", stale.Rev)
	}
	s.State = flash.Paused
	must(t, st.UpdateSandbox(ctx(), s))
	got := sandboxes(t, st)
	if len(got) != 1 || got[0].State != flash.Paused || got[0].Rev != 3 {
		t.Errorf("got %+v, want one paused sandbox at revision 3", got)
	}
}

// testSandboxRace: of several updates from one revision, exactly one wins.
func testSandboxRace(t *testing.T, st store.Store) {
	s := sandbox("sb-one")
	must(t, st.InsertSandbox(ctx(), s))
	const n = 8
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		c := *s
		wg.Go(func() { errs[i] = st.UpdateSandbox(ctx(), &c) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantCode(t, err, flash.Conflict)
	}
	if won != 1 {
		t.Errorf("%d of %d updates from the same revision went through, want 1", won, n)
	}
}

func testSandboxDelete(t *testing.T, st store.Store) {
	must(t, st.InsertSandbox(ctx(), sandbox("sb-one")))
	must(t, st.InsertSandbox(ctx(), sandbox("sb-two")))
	must(t, st.DeleteSandbox(ctx(), "sb-one"))
	must(t, st.DeleteSandbox(ctx(), "sb-one"))
	got := sandboxes(t, st)
	if len(got) != 1 || got[0].ID != "sb-two" {
		t.Errorf("after the delete there are %+v, want sb-two alone", got)
	}
	must(t, st.InsertSandbox(ctx(), sandbox("sb-one")))
}

func testSandboxOrder(t *testing.T, st store.Store) {
	base := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	insert := func(id flash.ID, age time.Duration) {
		s := sandbox(id)
		s.CreatedAt = base.Add(-age)
		must(t, st.InsertSandbox(ctx(), s))
	}
	insert("sb-c", 0)
	insert("sb-a", 2*time.Nanosecond)
	insert("sb-b", time.Nanosecond)
	insert("sb-d", 0)
	var ids []flash.ID
	for _, s := range sandboxes(t, st) {
		ids = append(ids, s.ID)
	}
	if diff := cmp.Diff([]flash.ID{"sb-a", "sb-b", "sb-c", "sb-d"}, ids); diff != "" {
		t.Errorf("oldest first, equal ones in the order of insertion (-want +got):\n%s", diff)
	}
}

func testSharesNoMemory(t *testing.T, st store.Store) {
	s := sandbox("sb-one")
	s.Command = []string{"sleep", "1"}
	s.Env = map[string]string{"A": "1"}
	must(t, st.InsertSandbox(ctx(), s))
	s.Command[0], s.Env["A"] = "changed", "changed"
	got := sandboxes(t, st)[0]
	if got.Command[0] != "sleep" || got.Env["A"] != "1" {
		t.Errorf("the caller's change went into the store: %v %v", got.Command, got.Env)
	}
	got.Command[0] = "changed"
	if again := sandboxes(t, st)[0]; again.Command[0] != "sleep" {
		t.Errorf("the reader's change went into the store: %v", again.Command)
	}
}

// testNotText: bytes that can't be kept are refused, never altered.
func testNotText(t *testing.T, st store.Store) {
	const bad = "caf\xe9"
	for name, spoil := range map[string]func(*store.Sandbox){
		"Command": func(s *store.Sandbox) { s.Command = []string{"echo", bad} },
		"Env":     func(s *store.Sandbox) { s.Env = map[string]string{"A": bad} },
		"EnvName": func(s *store.Sandbox) { s.Env = map[string]string{bad: "A"} },
		"Args":    func(s *store.Sandbox) { s.Args = []string{bad} },
		"FullEnv": func(s *store.Sandbox) { s.FullEnv = []string{"A=" + bad} },
		"Image":   func(s *store.Sandbox) { s.Image = "oci:/" + bad },
		"Dir":     func(s *store.Sandbox) { s.Dir = "/" + bad },
		"User":    func(s *store.Sandbox) { s.User = bad },
	} {
		s := sandbox("sb-bad")
		spoil(s)
		err := st.InsertSandbox(ctx(), s)
		if !errors.Is(err, flash.Invalid) {
			t.Errorf("%s that is not UTF-8: error %v, want code %q", name, err, flash.Invalid)
		}
		sn := &store.Snapshot{Snapshot: flash.Snapshot{ID: "sn-bad"}, Sandbox: *s}
		if err := st.InsertSnapshot(ctx(), sn); !errors.Is(err, flash.Invalid) {
			t.Errorf("snapshot with %s that is not UTF-8: error %v, want code %q", name, err, flash.Invalid)
		}
	}
	if got := sandboxes(t, st); len(got) != 0 {
		t.Errorf("%d refused records are in the store", len(got))
	}
}

func testNotJSON(t *testing.T, st store.Store) {
	s := sandbox("sb-bad")
	s.Metadata = map[string]any{"f": func() {}}
	wantCode(t, st.InsertSandbox(ctx(), s), flash.Invalid)
	if s.Rev != 0 {
		t.Errorf("a refused insert set Rev to %d", s.Rev)
	}
}

func testSnapshotRoundTrip(t *testing.T, st store.Store) { snapshotProperty(t, st, false) }

func testSnapshotFull(t *testing.T, st store.Store) { snapshotProperty(t, st, true) }

func snapshotProperty(t *testing.T, st store.Store, full bool) {
	rapid.Check(t, func(rt *rapid.T) {
		want := draw[store.Snapshot](rt, full, "snapshot")
		must(rt, st.InsertSnapshot(ctx(), want))
		defer func() { must(rt, st.DeleteSnapshot(ctx(), want.ID)) }()
		if diff := cmp.Diff([]*store.Snapshot{want}, snapshots(rt, st)); diff != "" {
			rt.Errorf("what was inserted differs from what came back (-want +got):\n%s", diff)
		}
	})
}

func testSnapshotTaken(t *testing.T, st store.Store) {
	sn := &store.Snapshot{Snapshot: flash.Snapshot{ID: "sn-one", Backend: "a"}}
	must(t, st.InsertSnapshot(ctx(), sn))
	wantCode(t, st.InsertSnapshot(ctx(), &store.Snapshot{Snapshot: flash.Snapshot{ID: "sn-one"}}), flash.Exists)
	if got := snapshots(t, st); len(got) != 1 || got[0].Backend != "a" {
		t.Errorf("the refused insert changed the record: %+v", got)
	}
}

func testSnapshotOrderAndDelete(t *testing.T, st store.Store) {
	base := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, id := range []flash.ID{"sn-c", "sn-b", "sn-a"} {
		sn := &store.Snapshot{Snapshot: flash.Snapshot{ID: id, CreatedAt: base.Add(-time.Duration(i))}}
		must(t, st.InsertSnapshot(ctx(), sn))
	}
	must(t, st.DeleteSnapshot(ctx(), "sn-b"))
	must(t, st.DeleteSnapshot(ctx(), "sn-b"))
	var ids []flash.ID
	for _, s := range snapshots(t, st) {
		ids = append(ids, s.ID)
	}
	if diff := cmp.Diff([]flash.ID{"sn-a", "sn-c"}, ids); diff != "" {
		t.Errorf("snapshots left (-want +got):\n%s", diff)
	}
}

func testGraves(t *testing.T, st store.Store) {
	base := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	g := func(id flash.ID, after time.Duration, reason string) store.Grave {
		return store.Grave{ID: id, At: base.Add(after), Reason: reason}
	}
	must(t, st.InsertGrave(ctx(), g("sb-b", 1, "killed: “oom”")))
	must(t, st.InsertGrave(ctx(), g("sb-a", 0, "exited")))
	must(t, st.InsertGrave(ctx(), g("sb-c", 0, "an id used twice")))
	must(t, st.InsertGrave(ctx(), g("sb-c", 2, "")))
	want := []store.Grave{g("sb-a", 0, "exited"), g("sb-b", 1, "killed: “oom”"), g("sb-c", 2, "")}
	if diff := cmp.Diff(want, graves(t, st)); diff != "" {
		t.Errorf("graves, oldest first, the later of one id counts (-want +got):\n%s", diff)
	}
	must(t, st.DropGraves(ctx(), base.Add(1)))
	if diff := cmp.Diff(want[1:], graves(t, st)); diff != "" {
		t.Errorf("after dropping those before the second (-want +got):\n%s", diff)
	}
}

// testContextEnded: a call that comes too late does nothing.
func testContextEnded(t *testing.T, st store.Store) {
	gone, cancel := context.WithCancel(ctx())
	cancel()
	s := sandbox("sb-one")
	wantCode(t, st.InsertSandbox(gone, s), flash.Canceled)
	if s.Rev != 0 {
		t.Errorf("the insert that did not happen set Rev to %d", s.Rev)
	}
	wantCode(t, st.InsertSnapshot(gone, &store.Snapshot{Snapshot: flash.Snapshot{ID: "sn-one"}}), flash.Canceled)
	wantCode(t, st.InsertGrave(gone, store.Grave{ID: "sb-one"}), flash.Canceled)
	_, err := st.Sandboxes(gone)
	wantCode(t, err, flash.Canceled)
	testEmpty(t, st)
}

func testClosed(t *testing.T, st store.Store) {
	must(t, st.InsertSandbox(ctx(), sandbox("sb-one")))
	must(t, st.Close())
	wantCode(t, st.InsertSandbox(ctx(), sandbox("sb-two")), flash.Unavailable)
	wantCode(t, st.UpdateSandbox(ctx(), sandbox("sb-one")), flash.Unavailable)
	wantCode(t, st.DeleteSandbox(ctx(), "sb-one"), flash.Unavailable)
	_, err := st.Sandboxes(ctx())
	wantCode(t, err, flash.Unavailable)
	_, err = st.Graves(ctx())
	wantCode(t, err, flash.Unavailable)
	if err := st.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func testConcurrent(t *testing.T, st store.Store) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			s := sandbox(flash.ID(fmt.Sprintf("sb-%02d", i)))
			for step := range 10 {
				var err error
				if step == 0 {
					err = st.InsertSandbox(ctx(), s)
				} else {
					err = st.UpdateSandbox(ctx(), s)
				}
				if err != nil {
					t.Errorf("%s, step %d: %v", s.ID, step, err)
				}
				if _, err := st.Sandboxes(ctx()); err != nil {
					t.Errorf("list: %v", err)
				}
			}
		})
	}
	wg.Wait()
	got := sandboxes(t, st)
	if len(got) != 16 {
		t.Fatalf("%d sandboxes, want 16", len(got))
	}
	for _, s := range got {
		if s.Rev != 10 {
			t.Errorf("%s is at revision %d, want 10", s.ID, s.Rev)
		}
	}
}
