package manager_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/fake"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
	"github.com/flash-sandbox/flash-sandbox/internal/store/memory"
)

// fullDisk is a store that can't write while full is set.
type fullDisk struct {
	store.Store
	full atomic.Bool
}

var errFull = flash.Errorf(flash.Exhausted, "the disk is full")

func (s *fullDisk) UpdateSandbox(ctx context.Context, r *store.Sandbox) error {
	if s.full.Load() {
		return errFull
	}
	return s.Store.UpdateSandbox(ctx, r)
}

func (s *fullDisk) InsertSnapshot(ctx context.Context, r *store.Snapshot) error {
	if s.full.Load() {
		return errFull
	}
	return s.Store.InsertSnapshot(ctx, r)
}

// A sandbox whose state could not be stored must stay usable.
func TestFullDiskLeavesNothingStuck(t *testing.T) {
	h, ctx := open(t), context.Background()
	disk := &fullDisk{Store: h.store}
	h.stop()
	h.store, h.images = disk, &images{}
	h.start()
	sb := h.create(flash.CreateOptions{})
	disk.full.Store(true)
	_, err := h.Snapshot(ctx, sb.ID)
	wantCode(t, err, flash.Exhausted)
	h.exec(sb.ID, "true")
	wantCode(t, h.Delete(ctx, sb.ID, flash.DeleteOptions{Keep: true}), flash.Exhausted)
	h.exec(sb.ID, "true")
	if err := h.Delete(ctx, sb.ID, flash.DeleteOptions{}); err != nil {
		t.Errorf("delete on a full disk: %v", err)
	}
	disk.full.Store(false)
}

// A machine that is paused though its record says it runs must be wakeable.
func TestResumeAsksTheMachine(t *testing.T) {
	h, ctx := open(t), context.Background()
	sb := h.create(flash.CreateOptions{})
	h.fault(func(_ context.Context, at string, _ flash.ID) error {
		if at == fake.OpSnapshotPaused {
			return fake.ErrCrash
		}
		return nil
	})
	if _, err := h.Snapshot(ctx, sb.ID); err == nil {
		t.Fatal("snapshot succeeded")
	}
	h.fault(nil)
	if err := h.Resume(ctx, sb.ID); err != nil {
		t.Fatal(err)
	}
	h.exec(sb.ID, "true")
}

// A create that waits for something must not hold up the adoption of others.
func TestSlowCreateDelaysNobody(t *testing.T) {
	h := open(t)
	sb := h.create(flash.CreateOptions{})
	var away atomic.Bool
	away.Store(true)
	started, leave := make(chan struct{}), make(chan struct{})
	h.fault(func(_ context.Context, at string, _ flash.ID) error {
		switch {
		case at == fake.OpProbe && away.Load():
			return flash.Errorf(flash.Unavailable, "away")
		case at == fake.OpCreateDir:
			close(started)
			<-leave
		}
		return nil
	})
	h.reopen()
	away.Store(false)
	done := make(chan error, 1)
	go func() {
		for {
			_, err := h.Create(context.Background(), flash.CreateOptions{Image: "alpine"})
			if !errors.Is(err, flash.Unavailable) {
				done <- err
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	<-started
	defer func() {
		close(leave)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := h.Exec(context.Background(), sb.ID, flash.ExecOptions{Command: []string{"true"}}); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatalf("still not adopted: %v", err)
		}
	}
}

// One failed listing must not keep orphans for good.
func TestListingIsTriedAgain(t *testing.T) {
	h := open(t)
	h.create(flash.CreateOptions{})
	h.stop()
	var once atomic.Bool
	h.store, h.images = memory.New(), &images{}
	h.fault(func(_ context.Context, at string, _ flash.ID) error {
		if at == fake.OpList && once.CompareAndSwap(false, true) {
			return errors.New("hiccup")
		}
		return nil
	})
	h.start()
	for end := time.Now().Add(10 * time.Second); len(machines(t, h)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the machine without a record is still there")
		}
	}
}

func machines(t *testing.T, h *house) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(h.dir, "machines"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}
