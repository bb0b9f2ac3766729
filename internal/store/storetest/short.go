package storetest

import (
	"context"
	"errors"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func ctx() context.Context { return context.Background() }

func sandbox(id flash.ID) *store.Sandbox {
	return &store.Sandbox{Sandbox: flash.Sandbox{
		ID: id, State: flash.Creating, Backend: "fake", Image: "alpine",
		CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	}}
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func wantCode(t tester, err error, code flash.Code) {
	t.Helper()
	var e *flash.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error %v (%T), want code %q", err, err, code)
	}
}

func sandboxes(t tester, st store.Store) []*store.Sandbox {
	t.Helper()
	got, err := st.Sandboxes(ctx())
	must(t, err)
	return got
}

func snapshots(t tester, st store.Store) []*store.Snapshot {
	t.Helper()
	got, err := st.Snapshots(ctx())
	must(t, err)
	return got
}

func graves(t tester, st store.Store) []store.Grave {
	t.Helper()
	got, err := st.Graves(ctx())
	must(t, err)
	return got
}
