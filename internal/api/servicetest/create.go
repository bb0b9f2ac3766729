package servicetest

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func testCreate(t *testing.T, h *house) {
	began := time.Now()
	sb := h.create(t)
	if _, err := flash.ParseID(string(sb.ID)); err != nil {
		t.Errorf("id %q: %v", sb.ID, err)
	}
	if sb.State != flash.Running {
		t.Errorf("state after create is %s", sb.State)
	}
	got, err := h.Sandboxes.Get(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != sb.ID || got.State != flash.Running || got.Ending != nil {
		t.Errorf("got %+v", got)
	}
	if h.Narrow {
		return
	}
	for _, s := range []*flash.Sandbox{sb, got} {
		if s.Image != h.Image || s.MemoryMB != 256 || s.CPUCores != 1 || s.Backend == "" {
			t.Errorf("got %+v", s)
		}
		if s.CreatedAt.Before(began.Add(-time.Minute)) || s.ReadyAt.Before(s.CreatedAt) || s.ReadyAt.After(time.Now().Add(time.Minute)) {
			t.Errorf("created at %s, ready at %s; asked for at %s", s.CreatedAt, s.ReadyAt, began)
		}
	}
}

func testCreateFull(t *testing.T, h *house) {
	if h.Narrow {
		t.Skip("the wire can't say it")
	}
	id := flash.NewSandboxID() + "-own_Name"
	sb := h.create(t, func(o *flash.CreateOptions) {
		o.ID, o.Command = id, []string{"sleep", "601"}
		o.Env = map[string]string{"GREETING": "hei på dæ", "EMPTY": ""}
		o.Metadata = map[string]any{"name": "x", "deep": map[string]any{"list": []any{1.5, "two", nil, true}}}
		o.CPUCores = 0
	})
	if sb.ID != id {
		t.Errorf("id %q, want %q", sb.ID, id)
	}
	got, err := h.Sandboxes.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(got.Command, " ") != "sleep 601" || got.Env["GREETING"] != "hei på dæ" || got.CPUCores != 0 {
		t.Errorf("got %+v", got)
	}
	b, err := json.Marshal(got.Metadata)
	if want := `{"deep":{"list":[1.5,"two",null,true]},"name":"x"}`; err != nil || string(b) != want {
		t.Errorf("metadata %s (%v), want %s", b, err, want)
	}
	wantResult(t, h.sh(t, id, `printf %s "$GREETING-${EMPTY-unset}-"`), 0, "hei på dæ--", "")

	_, err = h.Sandboxes.Create(t.Context(), flash.CreateOptions{ID: id, Image: h.Image})
	wantError(t, err, flash.Exists, string(id))
}

func testCreateInvalid(t *testing.T, h *house) {
	long := strings.Repeat("x", flash.MaxImageBytes+1)
	for _, c := range []struct {
		name   string
		change func(*flash.CreateOptions)
		code   flash.Code
		word   string
		wide   bool // not expressible on the narrow wire
	}{
		{"no image", func(o *flash.CreateOptions) { o.Image = "" }, flash.Invalid, "image", false},
		{"blank image", func(o *flash.CreateOptions) { o.Image = " \t" }, flash.Invalid, "image", false},
		{"NUL in image", func(o *flash.CreateOptions) { o.Image = "a\x00b" }, flash.Invalid, "image", false},
		{"long image", func(o *flash.CreateOptions) { o.Image = long }, flash.Invalid, "image", false},
		{"missing image", func(o *flash.CreateOptions) { o.Image = h.MissingImage }, flash.Invalid, "image", false},
		{"unknown type", func(o *flash.CreateOptions) { o.Type = "no-such-backend" }, flash.Invalid, "no-such-backend", false},
		{"negative memory", func(o *flash.CreateOptions) { o.MemoryMB = -1 }, flash.Invalid, "memory_mb", false},
		{"absurd memory", func(o *flash.CreateOptions) { o.MemoryMB = math.MaxInt64 }, flash.Invalid, "memory_mb", false},
		{"NaN cores", func(o *flash.CreateOptions) { o.CPUCores = math.NaN() }, flash.Invalid, "cpu_cores", false},
		{"infinite cores", func(o *flash.CreateOptions) { o.CPUCores = math.Inf(1) }, flash.Invalid, "cpu_cores", false},
		{"negative cores", func(o *flash.CreateOptions) { o.CPUCores = -0.5 }, flash.Invalid, "cpu_cores", false},
		{"tiny cores", func(o *flash.CreateOptions) { o.CPUCores = 0.001 }, flash.Invalid, "cpu_cores", false},
		{"absurd cores", func(o *flash.CreateOptions) { o.CPUCores = 1e300 }, flash.Invalid, "cpu_cores", false},
		{"NUL in command", func(o *flash.CreateOptions) { o.Command = []string{"sleep", "1\x00"} }, flash.Invalid, "command", false},
		{"empty program", func(o *flash.CreateOptions) { o.Command = []string{"", "x"} }, flash.Invalid, "command", false},
		{"many arguments", func(o *flash.CreateOptions) { o.Command = make([]string, flash.MaxArgs+1); o.Command[0] = "true" }, flash.Invalid, "command", false},
		{"bad id", func(o *flash.CreateOptions) { o.ID = "../etc" }, flash.Invalid, "id", true},
		{"long id", func(o *flash.CreateOptions) { o.ID = flash.ID(strings.Repeat("x", flash.MaxIDLength+1)) }, flash.Invalid, "id", true},
		{"bad env", func(o *flash.CreateOptions) { o.Env = map[string]string{"A=B": "c"} }, flash.Invalid, "env", true},
		{"NUL in env", func(o *flash.CreateOptions) { o.Env = map[string]string{"A": "\x00"} }, flash.Invalid, "env", true},
		{"memory file alone", func(o *flash.CreateOptions) { o.MemFilePath = "/x" }, flash.Invalid, "mem_file_path", true},
		{"foreign snapshot", func(o *flash.CreateOptions) { o.SnapshotPath, o.Image = "/etc/passwd", "" }, flash.Denied, "snapshot_path", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.wide && h.Narrow {
				t.Skip("the wire can't say it")
			}
			o := flash.CreateOptions{Image: h.Image, MemoryMB: 256, CPUCores: 1}
			c.change(&o)
			sb, err := h.Sandboxes.Create(t.Context(), o)
			if err == nil {
				h.cleanUp(t, sb.ID)
			}
			wantError(t, err, c.code, c.word)
		})
	}
}

func testCreateTypes(t *testing.T, h *house) {
	for _, typ := range []string{"", "auto", "any", "ANY"} {
		sb := h.create(t, func(o *flash.CreateOptions) { o.Type = typ })
		if !h.Narrow && (sb.Backend == "" || strings.EqualFold(sb.Backend, "auto") || strings.EqualFold(sb.Backend, "any")) {
			t.Errorf("type %q gives backend %q", typ, sb.Backend)
		}
	}
}

// testCreateCancelled leaves before the sandbox is there. Nothing of it may
// remain; only where the answer got lost, the whole sandbox may.
func testCreateCancelled(t *testing.T, h *house) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sb, err := h.Sandboxes.Create(ctx, flash.CreateOptions{Image: h.Image})
	if err == nil {
		h.cleanUp(t, sb.ID)
		t.Fatal("a create whose caller has left succeeds")
	}
	if !errors.Is(err, flash.Canceled) && flash.AsError(err).Code != flash.Canceled {
		t.Errorf("error %v, want canceled", err)
	}
	if h.Service == nil {
		return
	}
	id := flash.NewSandboxID()
	ctx, cancel = context.WithTimeout(t.Context(), 3*time.Millisecond)
	defer cancel()
	sb, err = h.Service.Create(ctx, flash.CreateOptions{ID: id, Image: h.Image})
	if err == nil { // faster than that: fine
		h.cleanUp(t, sb.ID)
		return
	}
	wait := 10 * time.Second
	if h.Remote {
		wait = 2 * time.Second
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		sb, err := h.Service.Get(t.Context(), id)
		if errors.Is(err, flash.NotFound) {
			return
		}
		if time.Now().After(deadline) {
			h.cleanUp(t, id)
			if h.Remote && err == nil && sb.State == flash.Running {
				return
			}
			t.Fatalf("the sandbox of a cancelled create is still there (%v)", err)
		}
	}
}

func testUnknownID(t *testing.T, h *house) {
	for _, id := range []flash.ID{
		flash.NewSandboxID(), "x", "..", "../../etc/passwd", "a/b", "a%2fb", "%00", "nul\x00", "ends ", "ünï", "a?b", "a#b", "-dash",
		flash.ID(strings.Repeat("long", 100)),
	} {
		for name, call := range map[string]func() error{
			"get":    func() error { _, err := h.Sandboxes.Get(t.Context(), id); return err },
			"delete": func() error { return h.Sandboxes.Delete(t.Context(), id, flash.DeleteOptions{}) },
			"keep":   func() error { return h.Sandboxes.Delete(t.Context(), id, flash.DeleteOptions{Keep: true}) },
			"exec": func() error {
				_, err := h.Sandboxes.Exec(t.Context(), id, flash.ExecOptions{Command: []string{"true"}})
				return err
			},
			"python":   func() error { _, err := h.Sandboxes.RunPython(t.Context(), id, flash.PythonOptions{}); return err },
			"info":     func() error { _, err := h.Sandboxes.PlatformInfo(t.Context(), id); return err },
			"metrics":  func() error { _, err := h.Sandboxes.Metrics(t.Context(), id); return err },
			"snapshot": func() error { _, err := h.Sandboxes.Snapshot(t.Context(), id); return err },
			"resume":   func() error { return h.Sandboxes.Resume(t.Context(), id) },
		} {
			e := checked(t, call(), flash.NotFound)
			if e.Reason != "sandbox_not_found" || e.Origin != flash.OriginWorker {
				t.Errorf("%s of %q: reason %q, origin %q; published clients need sandbox_not_found and worker", name, id, e.Reason, e.Origin)
			}
		}
	}
}
