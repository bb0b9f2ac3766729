package manager_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/fake"
	"github.com/flash-sandbox/flash-sandbox/internal/manager"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
	"github.com/flash-sandbox/flash-sandbox/internal/store/memory"
)

// images knows two images, with and without a command, and counts leases.
type images struct {
	mu     sync.Mutex
	leases int
}

type lease struct {
	im   *images
	ref  string
	once sync.Once
}

func (l *lease) Reference() string { return l.ref }
func (l *lease) Digest() string    { return "sha256:" + l.ref }
func (l *lease) Config() backend.ImageConfig {
	if strings.HasPrefix(l.ref, "bare") {
		return backend.ImageConfig{}
	}
	return backend.ImageConfig{Env: []string{"PATH=" + os.Getenv("PATH"), "COLOR=blue"}, Cmd: []string{"sleep", "600"}}
}

func (l *lease) Release() {
	l.once.Do(func() { l.im.mu.Lock(); l.im.leases--; l.im.mu.Unlock() })
}

func (im *images) Acquire(_ context.Context, ref string) (manager.Lease, error) {
	if strings.HasPrefix(ref, "missing") {
		return nil, &flash.Error{Code: flash.Invalid, Reason: "image_not_found", Message: "image: no such image"}
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	im.leases++
	return &lease{im: im, ref: ref}, nil
}

func (im *images) AcquireDigest(ctx context.Context, digest string) (manager.Lease, error) {
	return im.Acquire(ctx, strings.TrimPrefix(digest, "sha256:"))
}

func (im *images) List() []flash.Image { return nil }

func (im *images) held() int {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.leases
}

// house is a manager with what it stands on; reopen makes a new one on the
// same ground, as a new daemon would.
type house struct {
	*manager.Manager
	t      *testing.T
	dir    string
	store  store.Store
	images *images
	faults atomic.Pointer[func(ctx context.Context, op string, id flash.ID) error]
	cancel context.CancelFunc
	lost   bool // the records were lost
}

func open(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), store: memory.New(), images: &images{}}
	h.start()
	t.Cleanup(func() {
		h.fault(nil)
		h.reopen()
		list, _ := h.List(context.Background())
		for _, sb := range list {
			if err := h.Delete(context.Background(), sb.ID, flash.DeleteOptions{}); err != nil {
				t.Errorf("delete %s: %v", sb.ID, err)
			}
		}
		snaps, _ := h.Snapshots(context.Background())
		for _, sn := range snaps {
			if err := h.DeleteSnapshot(context.Background(), sn.ID); err != nil {
				t.Errorf("delete %s: %v", sn.ID, err)
			}
		}
		h.stop()
		if n := h.images.held(); n != 0 {
			t.Errorf("%d image leases are left", n)
		}
		for _, sub := range []string{"machines", "snapshots"} {
			if left, _ := os.ReadDir(filepath.Join(h.dir, sub)); len(left) > 0 {
				t.Errorf("%s left: %v", sub, left)
			}
		}
	})
	return h
}

func (h *house) start() {
	h.t.Helper()
	f := fake.New(fake.Config{Dir: filepath.Join(h.dir, "machines"), Fault: func(ctx context.Context, op string, id flash.ID) error {
		if f := h.faults.Load(); f != nil {
			return (*f)(ctx, op, id)
		}
		return nil
	}})
	m, err := manager.New(manager.Options{
		Backends: []backend.Backend{f}, Images: h.images, Store: h.store,
		SnapshotDir: filepath.Join(h.dir, "snapshots"), Logger: slog.New(slog.DiscardHandler), AdoptUnknown: h.lost,
		OutputLimit: 1 << 20, DestroyTimeout: 5 * time.Second,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Manager = m
	if err := m.Reconcile(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	var ctx context.Context
	ctx, h.cancel = context.WithCancel(context.Background())
	go func() { _ = m.Run(ctx) }()
}

func (h *house) stop() {
	h.cancel()
	if err := h.Close(); err != nil {
		h.t.Error(err)
	}
}

// fault makes the backend ask f at its fault points; nil: no faults.
func (h *house) fault(f func(ctx context.Context, op string, id flash.ID) error) {
	if f == nil {
		h.faults.Store(nil)
		return
	}
	h.faults.Store(&f)
}

// reopen is a restart of the daemon: leases die with it, machines don't.
func (h *house) reopen() {
	h.t.Helper()
	h.stop()
	h.images = &images{}
	h.start()
}

func (h *house) create(o flash.CreateOptions) *flash.Sandbox {
	h.t.Helper()
	if o.Image == "" && o.SnapshotPath == "" {
		o.Image = "alpine:latest"
	}
	sb, err := h.Create(context.Background(), o)
	if err != nil {
		h.t.Fatalf("create: %v", err)
	}
	return sb
}

func (h *house) exec(id flash.ID, script string) *flash.ExecResult {
	h.t.Helper()
	res, err := h.Exec(context.Background(), id, flash.ExecOptions{Command: []string{"sh", "-c", script}})
	if err != nil {
		h.t.Fatalf("exec %q: %v", script, err)
	}
	return res
}

func (h *house) wantState(id flash.ID, want flash.State) *flash.Sandbox {
	h.t.Helper()
	var sb *flash.Sandbox
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var err error
		if sb, err = h.Get(context.Background(), id); err != nil {
			h.t.Fatal(err)
		}
		if sb.State == want {
			return sb
		}
	}
	h.t.Fatalf("state is %s, want %s", sb.State, want)
	return nil
}

func wantCode(t *testing.T, err error, code flash.Code, words ...string) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("error is %v, want code %s", err, code)
	}
	e := flash.AsError(err)
	for _, w := range words {
		if !strings.Contains(e.Message+" "+e.Remediation, w) {
			t.Errorf("error %q (%q) does not say %q", e.Message, e.Remediation, w)
		}
	}
}

func TestLifeOfASandbox(t *testing.T) {
	h, ctx := open(t), context.Background()
	sb := h.create(flash.CreateOptions{Env: map[string]string{"FRUIT": "plum"}, MemoryMB: 128, CPUCores: 0.5})
	if sb.State != flash.Running || sb.Backend != "fake" || sb.MemoryMB != 128 {
		t.Fatalf("created as %+v", sb)
	}
	res := h.exec(sb.ID, `echo "$COLOR $FRUIT"; echo oops >&2; exit 3`)
	if string(res.Stdout) != "blue plum\n" || string(res.Stderr) != "oops\n" || res.Ending.ExitCode != 3 || res.Ending.Cause != flash.CauseExited {
		t.Errorf("exec gave %+v", res)
	}
	mt, err := h.Metrics(ctx, sb.ID)
	if err != nil || mt.PidsCurrent == 0 || mt.MemoryLimitBytes != 128<<20 {
		t.Errorf("metrics: %+v, %v", mt, err)
	}
	info, err := h.PlatformInfo(ctx, sb.ID)
	if err != nil || info.System != "Linux" || info.Release == "" {
		t.Errorf("platform info: %+v, %v", info, err)
	}
	if err := h.Delete(ctx, sb.ID, flash.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	err = h.Delete(ctx, sb.ID, flash.DeleteOptions{})
	wantCode(t, err, flash.NotFound, "it was deleted")
	if e := flash.AsError(err); e.Reason != "sandbox_not_found" || e.Origin != flash.OriginWorker {
		t.Errorf("wire code is %s from %s", e.Reason, e.Origin)
	}
	_, err = h.Get(ctx, "sb-unknown")
	wantCode(t, err, flash.NotFound)
}

func TestEndedSandboxKeepsItsCause(t *testing.T) {
	h := open(t)
	sb := h.create(flash.CreateOptions{Command: []string{"sh", "-c", "exit 7"}})
	sb = h.wantState(sb.ID, flash.Stopped)
	if sb.Ending == nil || sb.Ending.Cause != flash.CauseExited || sb.Ending.ExitCode != 7 {
		t.Fatalf("ending is %+v", sb.Ending)
	}
	_, err := h.Exec(context.Background(), sb.ID, flash.ExecOptions{Command: []string{"true"}})
	wantCode(t, err, flash.Conflict, "stopped", "delete it")
	wantCode(t, h.Resume(context.Background(), sb.ID), flash.Conflict)
	h.reopen()
	if again := h.wantState(sb.ID, flash.Stopped); again.Ending.ExitCode != 7 {
		t.Errorf("after a restart: %+v", again.Ending)
	}
}

func TestPausedBySnapshotUntilResumed(t *testing.T) {
	h, ctx := open(t), context.Background()
	sb := h.create(flash.CreateOptions{})
	h.exec(sb.ID, "echo kept > note")
	snap, err := h.Snapshot(ctx, sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	if snap.Memory || snap.Detail == "" || snap.SnapshotPath == "" {
		t.Errorf("snapshot: %+v", snap)
	}
	h.wantState(sb.ID, flash.Paused)
	_, err = h.Exec(ctx, sb.ID, flash.ExecOptions{Command: []string{"true"}})
	wantCode(t, err, flash.Conflict, "paused", "resume")
	if err := h.Resume(ctx, sb.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.Resume(ctx, sb.ID); err != nil {
		t.Errorf("resuming a running sandbox: %v", err)
	}
	h.exec(sb.ID, "echo later > note")
	for range 2 {
		copied := h.create(flash.CreateOptions{SnapshotPath: snap.SnapshotPath})
		if got := string(h.exec(copied.ID, "cat note").Stdout); got != "kept\n" {
			t.Errorf("restored note is %q", got)
		}
		if copied.Restored != snap.ID {
			t.Errorf("restored from %q", copied.Restored)
		}
	}
	h.reopen()
	copied := h.create(flash.CreateOptions{SnapshotPath: snap.SnapshotPath, Type: "fake"})
	if got := string(h.exec(copied.ID, "cat note").Stdout); got != "kept\n" {
		t.Errorf("after a restart the restored note is %q", got)
	}
	for _, bad := range []struct {
		o    flash.CreateOptions
		code flash.Code
		word string
	}{
		{flash.CreateOptions{SnapshotPath: "/etc/passwd"}, flash.Denied, "snapshot_path"},
		{flash.CreateOptions{SnapshotPath: snap.SnapshotPath + "/../../x"}, flash.Invalid, "snapshot_path"},
		{flash.CreateOptions{SnapshotPath: snap.SnapshotPath, MemFilePath: "/etc/shadow"}, flash.Invalid, "mem_file_path"},
		{flash.CreateOptions{SnapshotPath: snap.SnapshotPath, Image: "other"}, flash.Invalid, "image"},
		{flash.CreateOptions{MemFilePath: "x", Image: "alpine"}, flash.Invalid, "mem_file_path"},
	} {
		_, err := h.Create(ctx, bad.o)
		wantCode(t, err, bad.code, bad.word)
	}
	if err := h.DeleteSnapshot(ctx, snap.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.DeleteSnapshot(ctx, snap.ID), flash.NotFound)
	_, err = h.Create(ctx, flash.CreateOptions{SnapshotPath: snap.SnapshotPath})
	wantCode(t, err, flash.Invalid, "deleted")
}

func TestKeepPausesAndResumeWakes(t *testing.T) {
	h, ctx := open(t), context.Background()
	sb := h.create(flash.CreateOptions{})
	for range 2 {
		if err := h.Delete(ctx, sb.ID, flash.DeleteOptions{Keep: true}); err != nil {
			t.Fatal(err)
		}
	}
	h.wantState(sb.ID, flash.Paused)
	h.reopen()
	h.wantState(sb.ID, flash.Paused)
	if err := h.Resume(ctx, sb.ID); err != nil {
		t.Fatal(err)
	}
	h.exec(sb.ID, "true")
}

func TestRestartAdoptsWhatRuns(t *testing.T) {
	h := open(t)
	a, b := h.create(flash.CreateOptions{}), h.create(flash.CreateOptions{Command: []string{"sh", "-c", "sleep 1; exit 5"}})
	h.exec(a.ID, "echo x > mark")
	h.reopen()
	if got := string(h.exec(a.ID, "cat mark").Stdout); got != "x\n" {
		t.Errorf("adopted sandbox says %q", got)
	}
	if end := h.wantState(b.ID, flash.Stopped).Ending; end.ExitCode != 5 {
		t.Errorf("ended after the restart as %+v", end)
	}
}

func TestCrashPointsOfCreate(t *testing.T) {
	for _, op := range []string{fake.OpCreate, fake.OpCreateDir, fake.OpCreateStarted, fake.OpCreateDone} {
		t.Run(strings.ReplaceAll(op, ":", "-"), func(t *testing.T) {
			h := open(t)
			h.fault(func(_ context.Context, at string, _ flash.ID) error {
				if at == op {
					return fake.ErrCrash
				}
				return nil
			})
			if _, err := h.Create(context.Background(), flash.CreateOptions{ID: "chosen", Image: "alpine"}); err == nil {
				t.Fatal("create succeeded")
			}
			h.fault(nil)
			h.reopen() // its cleanup checks that nothing is left
			if list, _ := h.List(context.Background()); len(list) != 0 {
				t.Errorf("left: %+v", list[0])
			}
			h.create(flash.CreateOptions{ID: "chosen"})
		})
	}
}

func TestRecordLeftCreatingIsTakenBack(t *testing.T) {
	h := open(t)
	sb := h.create(flash.CreateOptions{})
	recs, err := h.store.Sandboxes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	h.stop()
	half := *recs[0] // as if the daemon had died between the effect and its record
	half.State, half.Handle = flash.Creating, nil
	if err := h.store.UpdateSandbox(context.Background(), &half); err != nil {
		t.Fatal(err)
	}
	h.images = &images{}
	h.start()
	_, err = h.Get(context.Background(), sb.ID)
	wantCode(t, err, flash.NotFound, "the daemon died")
}

func TestBadCreatesStartNothing(t *testing.T) {
	h, ctx := open(t), context.Background()
	for _, c := range []struct {
		o    flash.CreateOptions
		code flash.Code
		word string
	}{
		{flash.CreateOptions{}, flash.Invalid, "image"},
		{flash.CreateOptions{Image: "  "}, flash.Invalid, "image"},
		{flash.CreateOptions{Image: "missing:1"}, flash.Invalid, "image"},
		{flash.CreateOptions{Image: "bare"}, flash.Invalid, "command"},
		{flash.CreateOptions{Image: "a", Type: "vax"}, flash.Invalid, "type"},
		{flash.CreateOptions{Image: "a", Type: "firecracker"}, flash.Unsupported, "fake"},
		{flash.CreateOptions{Image: "a", Type: "docker/crun"}, flash.Unsupported, "type"},
		{flash.CreateOptions{Image: "a", MemoryMB: -1}, flash.Invalid, "memory_mb"},
		{flash.CreateOptions{Image: "a", MemoryMB: 1 << 60}, flash.Invalid, "memory_mb"},
		{flash.CreateOptions{Image: "a", CPUCores: -1}, flash.Invalid, "cpu_cores"},
		{flash.CreateOptions{Image: "a", CPUCores: 1e-9}, flash.Invalid, "cpu_cores"},
		{flash.CreateOptions{Image: "a", Command: []string{"a\x00b"}}, flash.Invalid, "NUL"},
		{flash.CreateOptions{Image: "a", Command: []string{""}}, flash.Invalid, "command"},
		{flash.CreateOptions{Image: "a", Command: []string{"/no/such/program"}}, flash.Invalid, "/no/such/program"},
		{flash.CreateOptions{Image: "a", ID: "../x"}, flash.Invalid, "id"},
		{flash.CreateOptions{Image: "a", KernelImage: "/boot/vmlinuz"}, flash.Invalid, "kernel_image"},
		{flash.CreateOptions{Image: "a", Env: map[string]string{"A=B": ""}}, flash.Invalid, "env"},
	} {
		_, err := h.Create(ctx, c.o)
		wantCode(t, err, c.code, c.word)
	}
	h.create(flash.CreateOptions{ID: "twice"})
	_, err := h.Create(ctx, flash.CreateOptions{ID: "twice", Image: "a"})
	wantCode(t, err, flash.Exists, "twice")
	if list, _ := h.List(ctx); len(list) != 1 {
		t.Errorf("%d sandboxes, want 1", len(list))
	}
}

func TestCallerGoneDuringCreate(t *testing.T) {
	h := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	h.fault(func(c context.Context, at string, _ flash.ID) error {
		if at == fake.OpCreateStarted {
			cancel()
		}
		return c.Err()
	})
	_, err := h.Create(ctx, flash.CreateOptions{Image: "alpine"})
	wantCode(t, err, flash.Canceled)
	h.fault(nil)
	if list, _ := h.List(context.Background()); len(list) != 0 {
		t.Errorf("left: %+v", list[0])
	}
}

func TestDeleteDuringCreate(t *testing.T) {
	h := open(t)
	started := make(chan struct{})
	h.fault(func(c context.Context, at string, _ flash.ID) error {
		if at == fake.OpCreateDir {
			close(started)
			<-c.Done()
			return c.Err()
		}
		return nil
	})
	errs := make(chan error, 1)
	go func() {
		_, err := h.Create(context.Background(), flash.CreateOptions{ID: "slow", Image: "alpine"})
		errs <- err
	}()
	<-started
	if err := h.Delete(context.Background(), "slow", flash.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	wantCode(t, <-errs, flash.Canceled)
	h.fault(nil)
}

func TestDeleteDuringExec(t *testing.T) {
	h := open(t)
	sb := h.create(flash.CreateOptions{})
	errs := make(chan error, 1)
	go func() {
		_, err := h.Exec(context.Background(), sb.ID, flash.ExecOptions{Command: []string{"sleep", "60"}})
		errs <- err
	}()
	time.Sleep(100 * time.Millisecond)
	if err := h.Delete(context.Background(), sb.ID, flash.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-errs:
		wantCode(t, err, flash.NotFound, "while the command ran")
		if !flash.AsError(err).Uncertain {
			t.Error("the command ran, so the outcome is uncertain")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("exec still runs")
	}
}

func TestExecEndings(t *testing.T) {
	h, ctx := open(t), context.Background()
	sb := h.create(flash.CreateOptions{})
	for _, c := range []struct {
		argv   []string
		code   int
		stderr string
	}{
		{[]string{"no-such-program"}, 127, "no-such-program"},
		{[]string{"/etc/passwd"}, 126, "/etc/passwd"},
		{[]string{"sh", "-c", "kill -9 $$"}, 137, ""},
	} {
		res, err := h.Exec(ctx, sb.ID, flash.ExecOptions{Command: c.argv})
		if err != nil || res.Ending.ExitCode != c.code || !strings.Contains(string(res.Stderr), c.stderr) {
			t.Errorf("%q: %+v, %v", c.argv, res, err)
		}
	}
	began := time.Now()
	res, err := h.Exec(ctx, sb.ID, flash.ExecOptions{Command: []string{"sh", "-c", "echo before; sleep 60"}, Timeout: 300 * time.Millisecond})
	if err != nil || res.Ending.ExitCode != 124 || res.Ending.Cause != flash.CauseTimeout || string(res.Stdout) != "before\n" {
		t.Errorf("deadline: %+v, %v", res, err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("deadline took %v", d)
	}
	left, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err = h.Exec(left, sb.ID, flash.ExecOptions{Command: []string{"sleep", "61"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("caller's end: %v", err)
	}
	if out := string(h.exec(sb.ID, "ps -e -o args | grep '^sleep 6[01]$' | wc -l").Stdout); strings.TrimSpace(out) != "0" {
		t.Errorf("%s killed commands still run", strings.TrimSpace(out))
	}
	_, err = h.Exec(ctx, sb.ID, flash.ExecOptions{})
	wantCode(t, err, flash.Invalid, "command")
}

func TestOutputIsBounded(t *testing.T) {
	h := open(t)
	sb := h.create(flash.CreateOptions{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	res := h.exec(sb.ID, "echo first; head -c 256M /dev/zero | tr '\\0' x; echo; echo last")
	runtime.ReadMemStats(&after)
	if !bytes.HasPrefix(res.Stdout, []byte("first\n")) || !bytes.HasSuffix(res.Stdout, []byte("\nlast\n")) {
		t.Error("head or tail is missing")
	}
	if res.StdoutDropped < 254<<20 || !bytes.Contains(res.Stdout, []byte("bytes dropped here")) || len(res.Stdout) > 1<<20+100 {
		t.Errorf("kept %d, dropped %d", len(res.Stdout), res.StdoutDropped)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("heap grew by %d bytes", grown)
	}
}

func TestPython(t *testing.T) {
	h, ctx := open(t), context.Background()
	sb := h.create(flash.CreateOptions{})
	res, err := h.RunPython(ctx, sb.ID, flash.PythonOptions{Code: "import sys; print(6*7); sys.exit(4)"})
	if err != nil || string(res.Stdout) != "42\n" || res.Ending.ExitCode != 4 {
		t.Errorf("python: %+v, %v", res, err)
	}
	none := h.create(flash.CreateOptions{Env: map[string]string{"PATH": "/nowhere"}, Command: []string{"/bin/sleep", "600"}})
	_, err = h.RunPython(ctx, none.ID, flash.PythonOptions{Code: "1"})
	wantCode(t, err, flash.Unsupported, "no Python", "python:3.11-slim")
	_, err = h.RunPython(ctx, sb.ID, flash.PythonOptions{Code: "a\x00"})
	wantCode(t, err, flash.Invalid, "code")
}

func TestBackendAwayAtStart(t *testing.T) {
	h := open(t)
	sb := h.create(flash.CreateOptions{})
	away := true
	var mu sync.Mutex
	h.fault(func(_ context.Context, at string, _ flash.ID) error {
		mu.Lock()
		defer mu.Unlock()
		if away && at == fake.OpProbe {
			return flash.Errorf(flash.Unavailable, "the engine sleeps")
		}
		return nil
	})
	h.reopen()
	_, err := h.Exec(context.Background(), sb.ID, flash.ExecOptions{Command: []string{"true"}})
	wantCode(t, err, flash.Unavailable, "the engine sleeps")
	_, err = h.Create(context.Background(), flash.CreateOptions{Image: "alpine"})
	wantCode(t, err, flash.Unavailable, "the engine sleeps")
	bs, err := h.Backends(context.Background())
	if err != nil || bs[0].Available || bs[0].Reason != "the engine sleeps" {
		t.Errorf("backends: %+v, %v", bs, err)
	}
	mu.Lock()
	away = false
	mu.Unlock()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = h.Exec(context.Background(), sb.ID, flash.ExecOptions{Command: []string{"true"}}); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not adopted when the backend came back: %v", err)
		}
	}
}

func TestDestroyIsTriedAgain(t *testing.T) {
	h := open(t)
	sb := h.create(flash.CreateOptions{})
	var once sync.Once
	h.fault(func(_ context.Context, at string, _ flash.ID) (err error) {
		if at == fake.OpDestroy {
			once.Do(func() { err = errors.New("engine hiccup") })
		}
		return err
	})
	wantCode(t, h.Delete(context.Background(), sb.ID, flash.DeleteOptions{}), flash.Timeout, "being removed")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := h.Get(context.Background(), sb.ID)
		if errors.Is(err, flash.NotFound) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("never removed")
		}
	}
}

func TestLostRecordsAreMadeAnew(t *testing.T) {
	h := open(t)
	sb, paused := h.create(flash.CreateOptions{}), h.create(flash.CreateOptions{})
	if err := h.Delete(context.Background(), paused.ID, flash.DeleteOptions{Keep: true}); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h.store, h.images, h.lost = memory.New(), &images{}, true
	h.start()
	h.exec(sb.ID, "true")
	h.wantState(paused.ID, flash.Paused)
	if err := h.Resume(context.Background(), paused.ID); err != nil {
		t.Fatal(err)
	}
	h.lost = false
	h.reopen()
	h.exec(paused.ID, "true")
}

func TestMachineWithoutRecordIsRemoved(t *testing.T) {
	h := open(t)
	sb := h.create(flash.CreateOptions{})
	h.stop()
	h.store, h.images = memory.New(), &images{}
	h.start() // its cleanup sees that no machine is left
	_, err := h.Get(context.Background(), sb.ID)
	wantCode(t, err, flash.NotFound)
}
