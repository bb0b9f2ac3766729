// Package servicetest is the suite that every flash.Sandboxes and flash.Service
// is held to, whether it is the manager itself or a client on the far side of a
// network: all must behave the same, down to the errors.
//
// It proves the contract in package flash, not what isolates sandboxes: that is
// backendtest's. What a wire can't say is left out by the facts that a Subject
// declares, never by its name.
//
//	func TestREST(t *testing.T) {
//		servicetest.Run(t, servicetest.Subject{Sandboxes: client, Image: "busybox", ...})
//	}
package servicetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// Subject is what is tested, with the facts about it.
type Subject struct {
	// Sandboxes is tested; if it is a flash.Service, the rest of that too.
	Sandboxes flash.Sandboxes
	// Image is an image with a shell, sleep, cat, head, printf and Python
	// whose own command runs until it is killed.
	Image string
	// PlainImage is one without Python, MissingImage one that does not exist.
	PlainImage, MissingImage string
	// OutputLimit is how many bytes of a stream an exec keeps.
	OutputLimit int
	// Text is true where output passes as text, so that bytes that are no
	// UTF-8 arrive as U+FFFD.
	Text bool
	// Remote is true where an answer can be lost on its way, so that a caller
	// who leaves at the last moment may leave a whole sandbox behind.
	Remote bool
	// Narrow is true for the gRPC wire: create takes type, image, command and
	// limits only, commands have no deadline of their own, sandboxes come back
	// with id and state only, Python's output is one text.
	Narrow bool
	// FreezesFiles is true where a restored snapshot has the files back.
	FreezesFiles bool
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	if s.Sandboxes == nil || s.Image == "" || s.PlainImage == "" || s.MissingImage == "" || s.OutputLimit == 0 {
		t.Fatal("servicetest: the Subject is incomplete")
	}
	h := &house{Subject: s}
	h.Service, _ = s.Sandboxes.(flash.Service)
	for _, c := range []struct {
		name string
		test func(*testing.T, *house)
	}{
		{"Create", testCreate}, {"CreateFull", testCreateFull}, {"CreateInvalid", testCreateInvalid}, {"CreateTypes", testCreateTypes}, {"CreateCancelled", testCreateCancelled},
		{"UnknownID", testUnknownID}, {"Delete", testDelete}, {"DeleteKeep", testDeleteKeep}, {"DeleteDuringExec", testDeleteDuringExec}, {"Stopped", testStopped},
		{"Exec", testExec}, {"ExecInvalid", testExecInvalid}, {"ExecBytes", testExecBytes}, {"ExecTruncated", testExecTruncated},
		{"ExecTimeout", testExecTimeout}, {"ExecCancelled", testExecCancelled}, {"ExecParallel", testExecParallel},
		{"Python", testPython}, {"PlatformInfo", testPlatformInfo}, {"Metrics", testMetrics},
		{"SnapshotResume", testSnapshotResume}, {"Restore", testRestore},
		{"List", testList}, {"Snapshots", testSnapshots}, {"ImagesBackends", testImagesBackends},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, h)
		})
	}
}

// house is a subject with helpers. Service is nil if it is none.
type house struct {
	Subject
	Service flash.Service
}

// service skips a test of what only a flash.Service has.
func (h *house) service(t *testing.T) flash.Service {
	t.Helper()
	if h.Service == nil {
		t.Skip("the subject is a flash.Sandboxes only")
	}
	return h.Service
}

// create makes a sandbox that the test's end removes.
func (h *house) create(t *testing.T, change ...func(*flash.CreateOptions)) *flash.Sandbox {
	t.Helper()
	o := flash.CreateOptions{Image: h.Image, MemoryMB: 256, CPUCores: 1}
	for _, c := range change {
		c(&o)
	}
	sb, err := h.Sandboxes.Create(t.Context(), o)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	h.cleanUp(t, sb.ID)
	return sb
}

func (h *house) cleanUp(t *testing.T, id flash.ID) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := h.Sandboxes.Delete(ctx, id, flash.DeleteOptions{}); err != nil && !errors.Is(err, flash.NotFound) {
			t.Errorf("delete %s at the end: %v", id, err)
		}
	})
}

// sh runs a shell script and fails the test if it can't be run.
func (h *house) sh(t *testing.T, id flash.ID, script string) *flash.ExecResult {
	t.Helper()
	res, err := h.Sandboxes.Exec(t.Context(), id, flash.ExecOptions{Command: []string{"sh", "-c", script}})
	if err != nil {
		t.Fatalf("exec %q: %v", script, err)
	}
	return res
}

// state waits until a sandbox is in a state, and returns it.
func (h *house) state(t *testing.T, id flash.ID, want flash.State) *flash.Sandbox {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		sb, err := h.Sandboxes.Get(t.Context(), id)
		if err != nil {
			t.Fatalf("get: %v", err)
		}
		if sb.State == want {
			return sb
		}
		if time.Now().After(deadline) {
			t.Fatalf("sandbox is %s, want %s", sb.State, want)
		}
	}
}

// wantError checks an error's code and that it is fit for users; words must
// all be in its message or remediation.
func wantError(t *testing.T, err error, code flash.Code, words ...string) {
	t.Helper()
	_ = checked(t, err, code, words...)
}

// checked is wantError for tests that look further.
func checked(t *testing.T, err error, code flash.Code, words ...string) *flash.Error {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	if !errors.Is(err, code) {
		t.Fatalf("error %q (%T), want code %s", err, err, code)
	}
	e := flash.AsError(err)
	if e.Code != code {
		t.Fatalf("error %q has code %s, want %s", e.Message, e.Code, code)
	}
	if strings.TrimSpace(e.Message) == "" {
		t.Fatalf("an error of code %s has no message", code)
	}
	for _, w := range words {
		if !strings.Contains(e.Message+" "+e.Remediation, w) {
			t.Errorf("error %q (%q) does not say %q", e.Message, e.Remediation, w)
		}
	}
	return e
}

// wantResult checks a result of exec.
func wantResult(t *testing.T, res *flash.ExecResult, code int, stdout, stderr string) {
	t.Helper()
	if res.Ending.ExitCode != code || string(res.Stdout) != stdout || string(res.Stderr) != stderr {
		t.Errorf("got exit code %d, stdout %s, stderr %s; want %d, %q, %q",
			res.Ending.ExitCode, short(res.Stdout), short(res.Stderr), code, stdout, stderr)
	}
}

func short(b []byte) string {
	if len(b) > 200 {
		return fmt.Sprintf("%q... (%d bytes)", b[:200], len(b))
	}
	return fmt.Sprintf("%q", b)
}
