// Package backendtest is the conformance suite of backends: what it checks is
// what package backend promises. It skips by facts that a backend declares
// (Info.SharesHost, its capabilities) and never by a backend's name.
//
//	func TestMain(m *testing.M) {
//		backendtest.Main(m, func(arg string) (backend.Backend, backend.Image, error) { ... })
//	}
//
//	func TestBackend(t *testing.T) {
//		dir := t.TempDir()
//		backendtest.Run(t, backendtest.Subject{
//			New:   func(t testing.TB) backend.Backend { return fake.New(fake.Config{Dir: dir}) },
//			Image: func(t testing.TB, kind string) backend.Image { ... },
//			Arg:   dir,
//			Marks: []string{dir},
//		})
//	}
//
// Commands inside use only what POSIX and busybox have in common, so that the
// suite also runs against machines that share the host's programs.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

// Subject is a backend under test.
type Subject struct {
	// New returns a new Backend on the subject's state. Several on one state
	// must see the same machines. The suite probes and closes it.
	New func(t testing.TB) backend.Backend
	// Image returns an image: "busybox" has sh and busybox's tools, "python"
	// python3 besides. Nil where Info.SharesHost is true.
	Image func(t testing.TB, kind string) backend.Image
	// Arg tells the Opener given to Main which state to open, so that a second
	// process sees the same machines.
	Arg string
	// User is a user who exists in the images, or on the host where
	// Info.SharesHost is true. Zero: "user" with uid and gid 1000.
	User User
	// Marks are strings of which one is in everything the subject leaves on
	// the host: directories, cgroups, labels. See testenv.Options.
	Marks []string
	// Env is the base environment of machines. Nil: only a usual PATH.
	Env []string
}

// User is a user of the images.
type User struct {
	Name     string
	UID, GID int
}

const (
	mib      = 1 << 20
	patience = 90 * time.Second // for anything that should take far less
	quickly  = 10 * time.Second // for what must not wait for something that takes minutes
)

// suite is a Subject at work.
type suite struct {
	Subject
	b    backend.Backend
	info backend.Info
	caps []string
}

// Run runs the suite.
func Run(t *testing.T, subject Subject) {
	goroutines := goleak.IgnoreCurrent()
	before := testenv.Take(testenv.Options{Marks: subject.Marks})
	fds := openFiles(t)
	s := begin(t, subject)
	t.Run("all", func(t *testing.T) {
		for _, group := range []map[string]func(*testing.T){
			s.lifecycleTests(), s.attachTests(), s.commandTests(), s.execTests(), s.outputTests(), s.stateTests(), s.limitTests(),
		} {
			for name, f := range group {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					f(t)
				})
			}
		}
	})
	if err := s.b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	testenv.Check(t, before)
	if err := goleak.Find(goroutines); err != nil {
		t.Errorf("goroutines are left: %v", err)
	}
	if now := openFiles(t); len(now) > len(fds)+2 { // the runtime's own epoll and event descriptors may be new
		t.Errorf("%d files were open before, %d are now: %q", len(fds), len(now), now)
	}
}

func begin(t testing.TB, subject Subject) *suite {
	t.Helper()
	s := &suite{Subject: subject}
	if s.User.Name == "" {
		s.User = User{Name: "user", UID: 1000, GID: 1000}
	}
	if s.Env == nil {
		s.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	s.b = s.open(t)
	s.info = s.b.Info()
	s.caps = backend.Capabilities(s.b)
	if s.info.Sample == nil || s.info.Name == "" {
		t.Fatalf("Info lacks a name or a sample: %+v", s.info)
	}
	if !s.can(backend.CapExec) {
		t.Fatalf("capabilities are %v: the suite can't look into machines without exec", s.caps)
	}
	return s
}

func (s *suite) can(capability string) bool { return slices.Contains(s.caps, capability) }

// open returns another Backend on the same state, probed. The caller closes it.
func (s *suite) open(t testing.TB) backend.Backend {
	t.Helper()
	b := s.New(t)
	if err := b.Probe(soon(t)); err != nil {
		t.Fatalf("Probe: %v", err)
	}
	return b
}

// spec asks for a machine that idles in /work.
func (s *suite) spec(t testing.TB, change ...func(*backend.Spec)) backend.Spec {
	t.Helper()
	sp := backend.Spec{
		ID: flash.NewSandboxID(), Args: []string{"sleep", "1000000"}, Env: s.Env, Dir: "/work",
		Hostname: "host-of-test", MemoryBytes: max(256*mib, s.info.MinMemory), CPUs: 1, Pids: 512,
	}
	for _, c := range change {
		c(&sp)
	}
	if sp.Image == nil && !s.info.SharesHost {
		sp.Image = s.Image(t, "busybox")
	}
	return sp
}

// command sets the main command.
func command(args ...string) func(*backend.Spec) {
	return func(sp *backend.Spec) { sp.Args = args }
}

// machine makes a machine that is destroyed at the end of the test.
func (s *suite) machine(t testing.TB, change ...func(*backend.Spec)) backend.Machine {
	t.Helper()
	m, err := s.b.Create(soon(t), s.spec(t, change...))
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	destroyLater(t, m)
	return m
}

func destroyLater(t testing.TB, m backend.Machine) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := m.Destroy(ctx); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
}

// result is how an exec went.
type result struct {
	stdout, stderr string
	flash.Ending
}

// start starts a process and fails the test if that is not possible.
func (s *suite) start(t testing.TB, m backend.Machine, es backend.ExecSpec) backend.Process {
	t.Helper()
	p, err := execer(t, m).Exec(soon(t), es)
	if err != nil {
		t.Fatalf("Exec %q: %v", es.Args, err)
	}
	return p
}

func execer(t testing.TB, m backend.Machine) backend.Execer {
	t.Helper()
	e, ok := backend.As[backend.Execer](m)
	if !ok {
		t.Fatalf("%T is no Execer, but the backend says it can exec", m)
	}
	return e
}

// exec runs a process to its end.
func (s *suite) exec(t testing.TB, m backend.Machine, es backend.ExecSpec) result {
	t.Helper()
	var out, errs syncBuffer
	es.Stdout, es.Stderr = &out, &errs
	end, err := s.start(t, m, es).Wait(soon(t))
	if err != nil {
		t.Fatalf("Wait for %q: %v", es.Args, err)
	}
	return result{out.String(), errs.String(), end}
}

// sh runs a shell script to its end and fails the test unless it exits with 0.
func (s *suite) sh(t testing.TB, m backend.Machine, script string, args ...string) string {
	t.Helper()
	r := s.exec(t, m, shell(script, args...))
	if r.Cause != flash.CauseExited || r.ExitCode != 0 {
		t.Fatalf("%q ended with %+v\nstdout: %.500s\nstderr: %.500s", script, r.Ending, r.stdout, r.stderr)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

func shell(script string, args ...string) backend.ExecSpec {
	return backend.ExecSpec{Args: append([]string{"sh", "-c", script, "sh"}, args...)}
}

// listed reports whether List has the machine.
func (s *suite) listed(t testing.TB, b backend.Backend, id flash.ID) (backend.Handle, bool) {
	t.Helper()
	for h, err := range b.List(soon(t)) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if h.ID == id {
			return h, true
		}
	}
	return backend.Handle{}, false
}

// end waits for the machine's end.
func end(t testing.TB, m backend.Machine) flash.Ending {
	t.Helper()
	e, err := m.Wait(soon(t))
	if err != nil {
		t.Fatalf("Wait for the machine: %v", err)
	}
	return e
}

func status(t testing.TB, m backend.Machine) backend.Status {
	t.Helper()
	st, err := m.Status(soon(t))
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	return st
}

// want checks an error's code.
func want(t testing.TB, what string, err error, code flash.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("%s: error is %v, want one with code %s", what, err, code)
	}
}

// soon is a context that ends when the test has clearly got stuck.
func soon(t testing.TB) context.Context { return within(t, patience) }

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until cond is true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// openFiles lists what the descriptors of this process stand for.
func openFiles(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			out = append(out, to)
		}
	}
	return out
}

// syncBuffer is a bytes.Buffer that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
