package backendtest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

func (s *suite) commandTests() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"MainExitCodes":      s.testMainExitCodes,
		"MainSignal":         s.testMainSignal,
		"MainStdinStaysOpen": s.testMainStdinStaysOpen,
		"MainEnvDir":         s.testMainEnvDir,
		"Users":              s.testUsers,
	}
}

func (s *suite) testMainExitCodes(t *testing.T) {
	for _, code := range []int{0, 1, 43, 255} {
		m := s.machine(t, command("sh", "-c", fmt.Sprintf("exit %d", code)))
		if e := end(t, m); e.Cause != flash.CauseExited || e.ExitCode != code {
			t.Errorf("Wait says %+v, want exited with %d", e, code)
		}
		if st := status(t, m); st != backend.StatusEnded {
			t.Errorf("Status is %s, want ended", st)
		}
	}
}

// testMainSignal kills the main command by a signal. The first process of a
// PID namespace takes no signals from inside, so it has to make a true fault.
func (s *suite) testMainSignal(t *testing.T) {
	sp := s.spec(t, func(sp *backend.Spec) {
		if s.info.SharesHost {
			sp.Args = []string{"sh", "-c", "kill -SEGV $$"}
			return
		}
		sp.Image = s.Image(t, "python")
		sp.Args = []string{"python3", "-c", "import ctypes; ctypes.string_at(0)"}
	})
	m, err := s.b.Create(soon(t), sp)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	destroyLater(t, m)
	if e := end(t, m); e.Cause != flash.CauseSignal || e.ExitCode != 128+11 {
		t.Errorf("Wait says %+v, want signal with %d", e, 128+11)
	}
}

// testMainStdinStaysOpen: a shell or cat without arguments is what many images
// run, and has to stay.
func (s *suite) testMainStdinStaysOpen(t *testing.T) {
	for _, args := range [][]string{{"cat"}, {"sh"}} {
		m := s.machine(t, command(args...))
		time.Sleep(300 * time.Millisecond)
		if st := status(t, m); st != backend.StatusRunning {
			t.Errorf("%v: Status is %s, want running", args, st)
		}
		if out := s.sh(t, m, "echo ok"); out != "ok" {
			t.Errorf("%v: exec says %q", args, out)
		}
	}
}

func (s *suite) testMainEnvDir(t *testing.T) {
	m := s.machine(t, func(sp *backend.Spec) {
		sp.Args = []string{"sh", "-c", `pwd > out; echo "$A|$B|$EMPTY|${UNSET-unset}" >> out; touch done; exec sleep 1000000`}
		sp.Env = append(sp.Env, "A=one two", "B=ü=\"$x\"", "EMPTY=")
		sp.Dir = "/work/is/made"
	})
	eventually(t, "the main command has written its file", func() bool { return s.sh(t, m, "ls") == "done\nout" })
	dir, rest, _ := strings.Cut(s.sh(t, m, "cat out"), "\n")
	if s.info.SharesHost {
		dir = dir[max(0, strings.LastIndex(dir, "/work")):] // the machine's root is somewhere on the host
	}
	if dir != "/work/is/made" {
		t.Errorf("the main command's directory is %q", dir)
	}
	if wanted := `one two|ü="$x"||unset`; rest != wanted {
		t.Errorf("the main command's environment says %q, want %q", rest, wanted)
	}
	if out := s.sh(t, m, `pwd; echo "$A|$EMPTY|${UNSET-unset}"`); !strings.HasSuffix(out, "/work/is/made\none two||unset") {
		t.Errorf("an exec's directory and environment are %q", out)
	}
}

func (s *suite) testUsers(t *testing.T) {
	if s.info.SharesHost {
		testenv.Require(t, testenv.Root)
	}
	u := s.User
	root := s.machine(t)
	for _, c := range []struct {
		user, uid, gid string
	}{
		{"", "0", "0"},
		{"root", "0", "0"},
		{u.Name, fmt.Sprint(u.UID), fmt.Sprint(u.GID)},
		{"1000:1000", "1000", "1000"},
		{fmt.Sprint(u.UID), fmt.Sprint(u.UID), fmt.Sprint(u.GID)},
		{"4321:1234", "4321", "1234"},
		{"4321", "4321", "0"},
		{u.Name + ":0", fmt.Sprint(u.UID), "0"},
		{u.Name + ":root", fmt.Sprint(u.UID), "0"},
	} {
		es := shell("id -u; id -g; grep ^Groups: /proc/self/status")
		es.User = c.user
		r := s.exec(t, root, es)
		lines := strings.SplitN(r.stdout+"\n\n", "\n", 3)
		if lines[0] != c.uid || lines[1] != c.gid {
			t.Errorf("exec as %q: uid and gid are %q, want %s and %s (stderr %q)", c.user, r.stdout, c.uid, c.gid, r.stderr)
		}
		groups := strings.Fields(strings.TrimPrefix(lines[2], "Groups:"))
		for _, g := range groups {
			if g == "0" && c.gid != "0" {
				t.Errorf("exec as %q keeps root's group: %q", c.user, lines[2])
			}
		}
	}
	es := shell("true")
	es.User = "no-such-user"
	_, err := execer(t, root).Exec(soon(t), es)
	want(t, "Exec as an unknown user", err, flash.Invalid)

	m := s.machine(t, func(sp *backend.Spec) {
		sp.User = u.Name
		sp.Dir = "/tmp"
		sp.Args = []string{"sh", "-c", "id -u > $OUT; exec sleep 1000000"}
		sp.Env = append(sp.Env, "OUT=/dev/null")
	})
	if out := s.sh(t, m, "id -u"); out != fmt.Sprint(u.UID) {
		t.Errorf("an exec without a user has uid %q, want the machine's %d", out, u.UID)
	}
	es = shell("id -u")
	es.User = "0"
	if r := s.exec(t, m, es); r.stdout != "0\n" {
		t.Errorf("an exec as 0 has uid %q", r.stdout)
	}
	if !s.info.SharesHost {
		if out := s.sh(t, m, "grep ^Uid: /proc/1/status"); !strings.Contains(out, fmt.Sprint(u.UID)) {
			t.Errorf("the main command's uids are %q, want %d", out, u.UID)
		}
	}
}
