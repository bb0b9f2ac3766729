package servicetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func testDelete(t *testing.T, h *house) {
	sb := h.create(t)
	if err := h.Sandboxes.Delete(t.Context(), sb.ID, flash.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wantError(t, h.Sandboxes.Delete(t.Context(), sb.ID, flash.DeleteOptions{}), flash.NotFound, string(sb.ID))
	_, err := h.Sandboxes.Get(t.Context(), sb.ID)
	wantError(t, err, flash.NotFound, string(sb.ID))

	// Two at once: one of them does it.
	sb = h.create(t)
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = h.Sandboxes.Delete(t.Context(), sb.ID, flash.DeleteOptions{}) })
	}
	wg.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else {
			wantError(t, err, flash.NotFound)
		}
	}
	if done != 1 {
		t.Errorf("%d of %d deletes say that they did it", done, len(errs))
	}
}

func testDeleteKeep(t *testing.T, h *house) {
	sb := h.create(t)
	wantResult(t, h.sh(t, sb.ID, "echo kept > file; cat file"), 0, "kept\n", "")
	if err := h.Sandboxes.Delete(t.Context(), sb.ID, flash.DeleteOptions{Keep: true}); err != nil {
		t.Fatal(err)
	}
	h.state(t, sb.ID, flash.Paused)
	_, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: []string{"true"}})
	if e := checked(t, err, flash.Conflict, "paused", "resume"); e.Remediation == "" {
		t.Errorf("no remediation: %q", e.Message)
	}
	if err := h.Sandboxes.Delete(t.Context(), sb.ID, flash.DeleteOptions{Keep: true}); err != nil {
		t.Errorf("keeping it again: %v", err)
	}
	if err := h.Sandboxes.Resume(t.Context(), sb.ID); err != nil {
		t.Fatal(err)
	}
	h.state(t, sb.ID, flash.Running)
	wantResult(t, h.sh(t, sb.ID, "cat file"), 0, "kept\n", "")
}

func testDeleteDuringExec(t *testing.T, h *house) {
	sb := h.create(t)
	got := make(chan error, 1)
	go func() {
		_, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: []string{"sleep", "300"}})
		got <- err
	}()
	time.Sleep(300 * time.Millisecond)
	if err := h.Sandboxes.Delete(t.Context(), sb.ID, flash.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err == nil {
			t.Error("an exec whose sandbox was deleted under it succeeds")
		} else if !errors.Is(err, flash.NotFound) && !errors.Is(err, flash.Conflict) {
			t.Errorf("error %v, want not_found or conflict", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the exec goes on after its sandbox was deleted")
	}
}

// testStopped has a command that ends by itself: its ending is kept.
func testStopped(t *testing.T, h *house) {
	sb := h.create(t, func(o *flash.CreateOptions) { o.Command = []string{"sh", "-c", "sleep 0.2; exit 7"} })
	got := h.state(t, sb.ID, flash.Stopped)
	if !h.Narrow {
		if got.Ending == nil || got.Ending.ExitCode != 7 || got.Ending.Cause != flash.CauseExited {
			t.Errorf("ending %+v, want exit code 7", got.Ending)
		}
	}
	_, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: []string{"true"}})
	wantError(t, err, flash.Conflict, string(sb.ID))
	_, err = h.Sandboxes.Metrics(t.Context(), sb.ID)
	wantError(t, err, flash.Conflict, string(sb.ID))
	_, err = h.Sandboxes.Snapshot(t.Context(), sb.ID)
	wantError(t, err, flash.Conflict, string(sb.ID))
	wantError(t, h.Sandboxes.Resume(t.Context(), sb.ID), flash.Conflict, string(sb.ID))
	if err := h.Sandboxes.Delete(t.Context(), sb.ID, flash.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

func testSnapshotResume(t *testing.T, h *house) {
	sb := h.create(t)
	sn, err := h.Sandboxes.Snapshot(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.dropSnapshot(t, sn)
	if sn.SnapshotPath == "" || sn.Memory != (sn.MemFilePath != "") {
		t.Errorf("got %+v", sn)
	}
	if !h.Narrow {
		if sn.ID == "" || sn.SandboxID != sb.ID || sn.Backend != sb.Backend || sn.Detail == "" || sn.SizeBytes <= 0 || sn.CreatedAt.IsZero() {
			t.Errorf("got %+v", sn)
		}
	}
	h.state(t, sb.ID, flash.Paused)
	_, err = h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: []string{"true"}})
	wantError(t, err, flash.Conflict, "resume")
	again, err := h.Sandboxes.Snapshot(t.Context(), sb.ID)
	if err != nil {
		t.Fatalf("snapshot of a paused sandbox: %v", err)
	}
	h.dropSnapshot(t, again)
	for range 2 { // resuming a running one does nothing
		if err := h.Sandboxes.Resume(t.Context(), sb.ID); err != nil {
			t.Fatal(err)
		}
		h.state(t, sb.ID, flash.Running)
	}
	wantResult(t, h.sh(t, sb.ID, "echo awake"), 0, "awake\n", "")
}

// dropSnapshot removes a snapshot at the test's end, where the subject can.
func (h *house) dropSnapshot(t *testing.T, sn *flash.Snapshot) {
	if h.Service == nil {
		return
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := h.Service.DeleteSnapshot(ctx, sn.ID); err != nil && !errors.Is(err, flash.NotFound) {
			t.Errorf("delete snapshot: %v", err)
		}
	})
}

func testRestore(t *testing.T, h *house) {
	if h.Narrow {
		t.Skip("the wire can't say it")
	}
	sb := h.create(t)
	wantResult(t, h.sh(t, sb.ID, "echo saved > note; cat note"), 0, "saved\n", "")
	sn, err := h.Sandboxes.Snapshot(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.dropSnapshot(t, sn)
	if err := h.Sandboxes.Delete(t.Context(), sb.ID, flash.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a snapshot may be used more than once
		got := h.create(t, func(o *flash.CreateOptions) {
			o.Image, o.SnapshotPath, o.MemFilePath = "", sn.SnapshotPath, sn.MemFilePath
		})
		if got.ID == sb.ID || got.Restored != sn.ID || got.Backend != sn.Backend {
			t.Errorf("got %+v", got)
		}
		if h.FreezesFiles {
			wantResult(t, h.sh(t, got.ID, "cat note"), 0, "saved\n", "")
		}
	}
	_, err = h.Sandboxes.Create(t.Context(), flash.CreateOptions{SnapshotPath: sn.SnapshotPath + "x"})
	if !errors.Is(err, flash.Invalid) && !errors.Is(err, flash.Denied) {
		t.Errorf("error %v, want invalid or denied", err)
	}
	_, err = h.Sandboxes.Create(t.Context(), flash.CreateOptions{SnapshotPath: sn.SnapshotPath, Env: map[string]string{"A": "b"}})
	wantError(t, err, flash.Invalid, "env")
}

func testList(t *testing.T, h *house) {
	svc := h.service(t)
	a, b := h.create(t), h.create(t)
	list, err := svc.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := func(id flash.ID) int {
		for i, sb := range list {
			if sb.ID == id {
				return i
			}
		}
		t.Fatalf("%s is not listed", id)
		return -1
	}
	if at(a.ID) >= at(b.ID) {
		t.Error("the list is not oldest first")
	}
	got := list[at(a.ID)]
	if got.State != flash.Running || got.Image != h.Image || got.Backend != a.Backend || !got.CreatedAt.Equal(a.CreatedAt) || got.MemoryMB != 256 {
		t.Errorf("listed as %+v, created as %+v", got, a)
	}
	if err := svc.Delete(t.Context(), a.ID, flash.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if list, err = svc.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, sb := range list {
		if sb.ID == a.ID {
			t.Error("a deleted sandbox is listed")
		}
	}
}

func testSnapshots(t *testing.T, h *house) {
	svc := h.service(t)
	sb := h.create(t)
	sn, err := svc.Snapshot(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	find := func() *flash.Snapshot {
		list, err := svc.Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.ID == sn.ID {
				return s
			}
		}
		return nil
	}
	if got := find(); got == nil || got.SnapshotPath != sn.SnapshotPath || got.SandboxID != sb.ID || got.SizeBytes != sn.SizeBytes || !got.CreatedAt.Equal(sn.CreatedAt) {
		t.Errorf("listed as %+v, made as %+v", got, sn)
	}
	if err := svc.DeleteSnapshot(t.Context(), sn.ID); err != nil {
		t.Fatal(err)
	}
	if find() != nil {
		t.Error("a deleted snapshot is listed")
	}
	for _, id := range []flash.ID{sn.ID, "..", "a/b"} {
		if e := checked(t, svc.DeleteSnapshot(t.Context(), id), flash.NotFound); e.Reason == "sandbox_not_found" {
			t.Error("a missing snapshot is called a missing sandbox")
		}
	}
	_, err = svc.Create(t.Context(), flash.CreateOptions{SnapshotPath: sn.SnapshotPath})
	wantError(t, err, flash.Invalid, "snapshot_path")
}

func testImagesBackends(t *testing.T, h *house) {
	svc := h.service(t)
	sb := h.create(t)
	if _, err := svc.Images(t.Context()); err != nil {
		t.Error(err)
	}
	list, err := svc.Backends(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, b := range list {
		if b.Available == (strings.TrimSpace(b.Reason) != "") {
			t.Errorf("%s: available %v, reason %q", b.Name, b.Available, b.Reason)
		}
		if b.Name == sb.Backend {
			found = b.Available && len(b.Capabilities) > 0 && b.Isolation != ""
		}
	}
	if !found {
		t.Errorf("backend %s is not among the available: %+v", sb.Backend, list)
	}
}
