package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

func TestMain(m *testing.M) {
	time.Local = time.UTC // tables show local time
	os.Exit(m.Run())
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; if that is meant, run the tests with -update (-file +got):\n%s", path, diff)
	}
}

// TestHelp holds every help text to its file, and every command to having one.
func TestHelp(t *testing.T) {
	a := &app{env: env{Get: func(string) string { return "" }}}
	commands := append([]*cobra.Command{a.root()}, a.root().Commands()...)
	for _, cmd := range commands {
		args := []string{cmd.Name(), "--help"}
		if cmd.Name() == "fsb" {
			args = args[1:]
		}
		got := fsb(t, newStub(), args...)
		if got.code != 0 || got.stderr != "" {
			t.Errorf("%v: %+v", args, got)
		}
		golden(t, "help/"+cmd.Name(), got.stdout)
	}
}

// TestHelpIgnoresEnvironment: the default shown is not the caller's own.
func TestHelpIgnoresEnvironment(t *testing.T) {
	var out bytes.Buffer
	run(t.Context(), []string{"--help"}, env{Get: func(string) string { return "elsewhere:1" }, Stdout: &out, Stderr: &out})
	if strings.Contains(out.String(), "elsewhere") {
		t.Errorf("help shows the value of a variable:\n%s", out.String())
	}
}

// TestOutput holds what commands print, as text and as JSON, to files.
func TestOutput(t *testing.T) {
	for name, args := range map[string][]string{
		"ps": {"ps"}, "inspect": {"inspect", "sb-one"}, "inspect-stopped": {"inspect", "sb-two"}, "metrics": {"metrics", "sb-one"},
		"snapshot": {"snapshot", "sb-one"}, "snapshots": {"snapshots"}, "images": {"images"}, "backends": {"backends"},
		"create": {"create", "alpine"}, "stop": {"stop", "sb-one"}, "resume": {"resume", "sb-one"}, "rmsnapshot": {"rmsnapshot", "sn-one"},
	} {
		got := fsb(t, newStub(), args...)
		if got.code != 0 || got.stderr != "" {
			t.Errorf("%s: %+v", name, got)
		}
		golden(t, "text/"+name, got.stdout)

		got = fsb(t, newStub(), append([]string{"--json"}, args...)...)
		if got.code != 0 || got.stderr != "" || !json.Valid([]byte(got.stdout)) {
			t.Errorf("%s --json: %+v", name, got)
		}
		golden(t, "json/"+name, got.stdout)
	}
}

func TestExec(t *testing.T) {
	result := func(stdout, stderr string, e flash.Ending) func(context.Context, flash.ExecOptions) (*flash.ExecResult, error) {
		return func(context.Context, flash.ExecOptions) (*flash.ExecResult, error) {
			return &flash.ExecResult{Stdout: []byte(stdout), Stderr: []byte(stderr), Ending: e}, nil
		}
	}
	for _, test := range []struct {
		name   string
		ending flash.Ending
		want   outcome
	}{
		{"success", flash.Ending{Cause: flash.CauseExited}, outcome{0, "a\xff\n", "b\n"}},
		{"failure", flash.Ending{Cause: flash.CauseExited, ExitCode: 43}, outcome{43, "a\xff\n", "b\n"}},
		{"not found", flash.Ending{Cause: flash.CauseExited, ExitCode: 127}, outcome{127, "a\xff\n", "b\n"}},
		{"oom", flash.Ending{Cause: flash.CauseOOM, ExitCode: 137, Message: "out of memory"}, outcome{137, "a\xff\n", "b\nfsb: out of memory\n"}},
		{"signal", flash.Ending{Cause: flash.CauseSignal, ExitCode: 139}, outcome{139, "a\xff\n", "b\nfsb: the command ended by signal\n"}},
		{"deadline", flash.Ending{Cause: flash.CauseTimeout, ExitCode: 137}, outcome{3, "a\xff\n", "b\nfsb: the command was killed at its deadline\n"}},
		{"unknown", flash.Ending{Cause: flash.CauseUnknown, ExitCode: -1}, outcome{255, "a\xff\n", "b\nfsb: the command ended by unknown\n"}},
	} {
		s := newStub()
		s.onExec = result("a\xff\n", "b\n", test.ending)
		if got := fsb(t, s, "exec", "sb-one", "--", "x"); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}

	s := newStub()
	s.onExec = result("a\n", "b\n", flash.Ending{Cause: flash.CauseExited, ExitCode: 5})
	got := fsb(t, s, "--json", "exec", "sb-one", "--", "x")
	var v execView
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil {
		t.Fatal(err)
	}
	if want := (execView{Stdout: "a\n", Stderr: "b\n", ExitCode: 5, Cause: flash.CauseExited}); v != want || got.code != 5 || got.stderr != "" {
		t.Errorf("--json: %+v from %+v", v, got)
	}
}

// TestCommandLine: what stands where, with and without the dash.
func TestCommandLine(t *testing.T) {
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"exec", "sb-one", "--", "ls", "-l", "--json"}, []string{"ls", "-l", "--json"}},
		{[]string{"exec", "sb-one", "ls", "/"}, []string{"ls", "/"}},
		{[]string{"exec", "sb-one", "--", "--", "x"}, []string{"--", "x"}},
		{[]string{"exec", "sb-one", "--", ""}, []string{""}},
		{[]string{"run", "alpine", "-m", "64", "--", "echo", "-n"}, []string{"echo", "-n"}},
		{[]string{"run", "alpine", "echo", "hi"}, []string{"echo", "hi"}},
		{[]string{"run", "-i", "alpine", "--", "echo"}, []string{"echo"}},
		{[]string{"run", "-i", "alpine", "echo"}, []string{"echo"}},
	} {
		s := newStub()
		if got := fsb(t, s, test.args...); got.code != 0 {
			t.Errorf("%q: %+v", test.args, got)
		}
		if !slices.Equal(s.executed.Command, test.want) {
			t.Errorf("%q ran %q, want %q", test.args, s.executed.Command, test.want)
		}
	}
}

func TestCreateOptions(t *testing.T) {
	for _, test := range []struct {
		args []string
		want flash.CreateOptions
	}{
		{[]string{"create", "alpine"}, flash.CreateOptions{Image: "alpine"}},
		{[]string{"create", "-i", "alpine", "-b", "docker", "-m", "64", "--cpu", "1.5", "--id", "mine"},
			flash.CreateOptions{Image: "alpine", Type: "docker", MemoryMB: 64, CPUCores: 1.5, ID: "mine"}},
		{[]string{"create", "alpine", "-e", "A=1=2", "-e", "B=", "-e", "FROM_OUTSIDE", "--", "sleep", "1"},
			flash.CreateOptions{Image: "alpine", Env: map[string]string{"A": "1=2", "B": "", "FROM_OUTSIDE": "outside"}, Command: []string{"sleep", "1"}}},
		{[]string{"create", "--snapshot", "sn-one"},
			flash.CreateOptions{Type: "gvisor", SnapshotPath: "/d/sn-one/state", MemFilePath: "/d/sn-one/pages"}},
	} {
		s := newStub()
		if got := fsb(t, s, test.args...); got.code != 0 {
			t.Errorf("%q: %+v", test.args, got)
		}
		want := test.want
		if len(s.created.Command) == 0 {
			s.created.Command = nil
		}
		if diff := cmp.Diff(want, s.created); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.args, diff)
		}
	}
}

// TestRunRemoves: whatever happens, nothing is left.
func TestRunRemoves(t *testing.T) {
	refused := flash.Errorf(flash.Conflict, "no").WithRemediation("Do this.")
	for _, test := range []struct {
		name  string
		setup func(*stub)
		want  outcome
		left  int
	}{
		{"success", func(*stub) {}, outcome{0, "out\n", "err\n"}, 0},
		{"exec refused", func(s *stub) {
			s.onExec = func(context.Context, flash.ExecOptions) (*flash.ExecResult, error) { return nil, refused }
		}, outcome{2, "", "error: no\n  Do this.\n"}, 0},
		{"create's answer lost", func(s *stub) {
			s.onCreate = func(_ context.Context, o flash.CreateOptions) error {
				s.sandboxes[o.ID] = &flash.Sandbox{ID: o.ID}
				return &flash.Error{Code: flash.Internal, Reason: "connection_lost", Message: "broke"}
			}
		}, outcome{3, "", "error: broke\n"}, 0},
		{"create refused", func(s *stub) {
			s.onCreate = func(context.Context, flash.CreateOptions) error { return refused }
		}, outcome{2, "", "error: no\n  Do this.\n"}, 0},
	} {
		s := newStub()
		test.setup(s)
		before := len(s.sandboxes)
		got := fsb(t, s, "run", "alpine", "--", "x")
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
		if left := len(s.sandboxes) - before; left != test.left {
			t.Errorf("%s: %d sandboxes left behind, calls %q", test.name, left, s.calls)
		}
		if !slices.Equal(s.created.Command, keeper) {
			t.Errorf("%s: the sandbox ran %q", test.name, s.created.Command)
		}
	}
}

func TestRunSaysWhatIsLeft(t *testing.T) {
	s := newStub()
	s.onDelete = func(flash.ID) error { return errors.New("boom") }
	got := fsb(t, s, "run", "alpine", "--", "x")
	if got.code != 2 || !strings.Contains(got.stderr, "could not be removed") {
		t.Errorf("%+v, want exit code 2 and a line about what is left", got)
	}
	s.onExec = func(context.Context, flash.ExecOptions) (*flash.ExecResult, error) {
		return &flash.ExecResult{Ending: flash.Ending{Cause: flash.CauseExited, ExitCode: 9}}, nil
	}
	if got := fsb(t, s, "run", "alpine", "--", "x"); got.code != 9 {
		t.Errorf("%+v, want the command's own exit code 9", got)
	}
}

// TestInterrupt: Ctrl-C during a run removes the sandbox as well.
func TestInterrupt(t *testing.T) {
	for _, during := range []string{"create", "exec"} {
		ctx, cancel := context.WithCancel(t.Context())
		s := newStub()
		if during == "create" {
			s.onCreate = func(_ context.Context, o flash.CreateOptions) error {
				s.sandboxes[o.ID] = &flash.Sandbox{ID: o.ID}
				cancel()
				return flash.AsError(context.Canceled)
			}
		} else {
			s.onExec = func(ctx context.Context, _ flash.ExecOptions) (*flash.ExecResult, error) {
				cancel()
				<-ctx.Done()
				return nil, flash.AsError(ctx.Err())
			}
		}
		got := fsbContext(ctx, s, "run", "alpine", "--", "x")
		if got.code != 130 || got.stderr != "interrupted\n" || len(s.sandboxes) != 2 {
			t.Errorf("during %s: %+v, %d sandboxes; want exit code 130 and 2", during, got, len(s.sandboxes))
		}
		cancel()
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"inspect", "sb-nope"}, 4, "error: sandbox sb-nope does not exist\n"},
		{[]string{"stop", "sb-nope"}, 4, "error: sandbox sb-nope does not exist\n"},
		{[]string{"exec", "sb-nope", "--", "x"}, 4, "error: sandbox sb-nope does not exist\n"},
		{[]string{"metrics", "sb-nope"}, 4, "error: sandbox sb-nope does not exist\n"},
		{[]string{"rmsnapshot", "sn-nope"}, 4, "error: snapshot sn-nope does not exist\n"},
		{[]string{"create", "--snapshot", "sn-nope"}, 4, "error: snapshot \"sn-nope\" does not exist\n  fsb snapshots lists them.\n"},
		{[]string{"resume", "sb-two"}, 2, "error: sandbox sb-two is stopped\n  Create it anew.\n"},
		{[]string{"create", "alpine", "-m", "-5"}, 2, "error: memory_mb: is -5; give the limit in MiB as a positive number, or 0 for the default\n"},
		{[]string{"create"}, 2, "error: give an image, or --snapshot\nSee: fsb create --help\n"},
		{[]string{"create", "a", "b", "--", "c"}, 2, "error: unexpected argument \"b\" in front of --\nSee: fsb create --help\n"},
		{[]string{"create", "a", "-i", "b", "--"}, 2, "error: the image is given twice, as \"a\" and with --image \"b\"\nSee: fsb create --help\n"},
		{[]string{"create", "a", "-e", "=x"}, 2, "error: --env \"=x\": give NAME=VALUE or NAME\nSee: fsb create --help\n"},
		{[]string{"run", "alpine"}, 2, "error: give an image and a command: fsb run IMAGE -- COMMAND\nSee: fsb run --help\n"},
		{[]string{"run", "--", "ls"}, 2, "error: give an image: fsb run IMAGE -- COMMAND\nSee: fsb run --help\n"},
		{[]string{"exec", "sb-one"}, 2, "error: give an id and a command: fsb exec ID -- COMMAND\nSee: fsb exec --help\n"},
		{[]string{"exec", "sb-one", "ls", "-l"}, 2, "error: unknown shorthand flag: 'l' in -l; put -- in front of the command to run\nSee: fsb exec --help\n"},
		{[]string{"ps", "x"}, 2, "error: unknown command \"x\" for \"fsb ps\"\nSee: fsb ps --help\n"},
		{[]string{"pss"}, 2, "error: unknown command \"pss\" for \"fsb\"\n\nDid you mean this?\n\tps\n\nSee: fsb --help\n"},
		{[]string{"--timeout", "0", "ps"}, 2, "error: invalid argument \"0\" for \"--timeout\" flag: give a positive number of seconds, or a duration such as 1m30s\nSee: fsb ps --help\n"},
	} {
		got := fsb(t, newStub(), test.args...)
		if got.code != test.code || got.stderr != test.want || got.stdout != "" {
			t.Errorf("%q: %+v, want code %d and %q", test.args, got, test.code, test.want)
		}
	}
}

// TestSeveral: the others are done even when one fails.
func TestSeveral(t *testing.T) {
	s := newStub()
	got := fsb(t, s, "stop", "sb-one", "sb-nope", "sb-two")
	want := outcome{4, "stopped sb-one\nstopped sb-two\n", "error: sandbox sb-nope does not exist\n"}
	if got != want || len(s.sandboxes) != 0 {
		t.Errorf("%+v, want %+v; %d left", got, want, len(s.sandboxes))
	}
}

func TestStopKeep(t *testing.T) {
	s := newStub()
	fsb(t, s, "stop", "--keep", "sb-one")
	if diff := cmp.Diff([]string{"delete sb-one keep=true"}, s.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestTimeout(t *testing.T) {
	s := newStub()
	fsb(t, s, "--timeout", "1.5", "exec", "sb-one", "--", "x")
	if s.executed.Timeout != 1500*time.Millisecond {
		t.Errorf("the command's deadline is %s, want 1.5s", s.executed.Timeout)
	}
	fsb(t, s, "exec", "--timeout", "2m", "sb-one", "--", "x")
	if s.executed.Timeout != 2*time.Minute {
		t.Errorf("the command's deadline is %s, want 2m", s.executed.Timeout)
	}
	s.onCreate = func(ctx context.Context, _ flash.CreateOptions) error {
		<-ctx.Done()
		return flash.AsError(ctx.Err())
	}
	if got := fsb(t, s, "create", "--timeout", "0.01", "alpine"); got.code != 3 {
		t.Errorf("no answer in time: %+v, want exit code 3", got)
	}
}

// TestRealClient: addresses and connection errors as package client has them.
func TestRealClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"FLASH_SANDBOX_ADDR": address}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"ps"}, 3, address},
		{[]string{"run", "alpine", "--", "x"}, 3, address},
		{[]string{"-H", "http://" + address + "/prefix", "ps"}, 3, address + "/prefix"},
		{[]string{"-H", "ftp://x", "ps"}, 2, "ftp"},
		{[]string{"inspect", "../backends"}, 4, "does not exist"},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), test.args, env{
			Get: func(name string) string { return vars[name] }, Stdout: &out, Stderr: &errOut, Connect: connect,
		})
		if code != test.code || !strings.Contains(errOut.String(), test.want) || strings.Count(errOut.String(), "error: ") != 1 {
			t.Errorf("%q: code %d, %q; want code %d and %q once", test.args, code, errOut.String(), test.code, test.want)
		}
	}
}

func TestVersion(t *testing.T) {
	got := fsb(t, newStub(), "version")
	if got.code != 0 || !strings.HasPrefix(got.stdout, "fsb ") {
		t.Errorf("%+v", got)
	}
	if got := fsb(t, newStub(), "version", "--json"); !json.Valid([]byte(got.stdout)) {
		t.Errorf("%+v", got)
	}
}
