package backendtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

func (s *suite) execTests() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"ExecTable":       s.testExecTable,
		"ExecArgv":        s.testExecArgv,
		"ExecStartErrors": s.testExecStartErrors,
		"ExecStdin":       s.testExecStdin,
		"ExecConcurrent":  s.testExecConcurrent,
		"ExecBackground":  s.testExecBackground,
		"ExecKill":        s.testExecKill,
		"ExecWaitAgain":   s.testExecWaitAgain,
		"ExecCallerGone":  s.testExecCallerGone,
	}
}

func (s *suite) testExecTable(t *testing.T) {
	m := s.machine(t, func(sp *backend.Spec) { sp.Env = append(sp.Env, "A=machine", "B=machine") })
	s.sh(t, m, "mkdir sub")
	exited := func(code int) flash.Ending { return flash.Ending{Cause: flash.CauseExited, ExitCode: code} }
	signal := func(n int) flash.Ending { return flash.Ending{Cause: flash.CauseSignal, ExitCode: 128 + n} }
	for name, c := range map[string]struct {
		es   backend.ExecSpec
		want result
	}{
		"streams":   {shell("echo out; echo err >&2"), result{"out\n", "err\n", exited(0)}},
		"silent":    {shell(":"), result{"", "", exited(0)}},
		"exit 1":    {shell("exit 1"), result{"", "", exited(1)}},
		"exit 43":   {shell("echo x; exit 43"), result{"x\n", "", exited(43)}},
		"exit 255":  {shell("exit 255"), result{"", "", exited(255)}},
		"SIGKILL":   {shell("echo x; kill -KILL $$"), result{"x\n", "", signal(9)}},
		"SIGTERM":   {shell("kill -TERM $$"), result{"", "", signal(15)}},
		"env":       {backend.ExecSpec{Args: shell(`echo "$A|$B|$C"`).Args, Env: []string{"B=exec", "C=exec"}}, result{"machine|exec|exec\n", "", exited(0)}},
		"dir":       {backend.ExecSpec{Args: shell(`pwd | sed 's,.*/work,/work,'`).Args, Dir: "/work/sub"}, result{"/work/sub\n", "", exited(0)}},
		"no stdin":  {backend.ExecSpec{Args: []string{"cat"}}, result{"", "", exited(0)}},
		"not UTF-8": {shell(`printf '\377\000\200x'`), result{"\xff\x00\x80x", "", exited(0)}},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.exec(t, m, c.es)
			got.Message = "" // for people
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func (s *suite) testExecArgv(t *testing.T) {
	m := s.machine(t)
	args := []string{
		"", "plain", "two words", " ", "line\nbreak", "tab\t", `"double"`, `'single'`, `back\slash\n`, "$HOME `id` $(id)",
		"*", "?", "~", "-n", "--", "a=b", "{a,b}", "ünï ☃", "", strings.Repeat("long", 20000), "",
	}
	r := s.exec(t, m, shell(`for a in "$@"; do printf '%s\0' "$a"; done`, args...))
	if diff := cmp.Diff(strings.Join(args, "\x00")+"\x00", r.stdout); diff != "" {
		t.Errorf("arguments arrive changed, -want +got:\n%s", diff)
	}

	// Some engines are spoken to in JSON, which has no room for other bytes:
	// they must refuse them rather than change them.
	const raw = "\xff\xfe"
	r, err := s.try(t, m, shell(`printf '%s' "$1"`, raw))
	if err != nil {
		want(t, "Exec with an argument that is not UTF-8", err, flash.Invalid)
	} else if r.stdout != raw {
		t.Errorf("an argument that is not UTF-8 arrives as %q", r.stdout)
	}
}

func (s *suite) testExecStartErrors(t *testing.T) {
	m := s.machine(t)
	for name, code := range map[string]int{"no-such-program": 127, "/no/such/program": 127, "/etc/passwd": 126, "/etc": 126} {
		_, err := execer(t, m).Exec(soon(t), backend.ExecSpec{Args: []string{name, "x"}})
		var se *backend.StartError
		if !errors.As(err, &se) {
			t.Errorf("Exec of %s: error is %v, want a *StartError", name, err)
			continue
		}
		if se.ExitCode != code || !strings.Contains(se.Message, name) {
			t.Errorf("Exec of %s: %d %q, want %d and a message that names it", name, se.ExitCode, se.Message, code)
		}
	}
	if out := s.sh(t, m, "echo fine"); out != "fine" {
		t.Errorf("an exec after failed ones says %q", out)
	}
}

func (s *suite) testExecStdin(t *testing.T) {
	m := s.machine(t)
	data := noise(mib + 7)
	r := s.exec(t, m, backend.ExecSpec{Args: []string{"cat"}, Stdin: strings.NewReader(data)})
	if r.stdout != data || r.ExitCode != 0 {
		t.Errorf("%d bytes in, %d bytes out, equal: %v, %+v", len(data), len(r.stdout), r.stdout == data, r.Ending)
	}
	// A process that doesn't read its input ends all the same.
	if r := s.exec(t, m, backend.ExecSpec{Args: []string{"true"}, Stdin: strings.NewReader(data)}); r.ExitCode != 0 {
		t.Errorf("true with input that it does not read: %+v", r.Ending)
	}
}

func (s *suite) testExecConcurrent(t *testing.T) {
	m := s.machine(t)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 20)
	for i := range 100 {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			nonce := fmt.Sprintf("%d-%s", i, noise(8)[:4])
			es := shell(`echo "$1"; echo "e$1" >&2; exit "$2"`, fmt.Sprintf("%x", nonce), fmt.Sprint(i))
			r, err := s.try(t, m, es)
			if err != nil {
				t.Errorf("exec %d: %v", i, err)
				return
			}
			if r.stdout != fmt.Sprintf("%x\n", nonce) || r.stderr != fmt.Sprintf("e%x\n", nonce) || r.ExitCode != i {
				t.Errorf("exec %d of %x says %q, %q, %+v", i, nonce, r.stdout, r.stderr, r.Ending)
			}
		})
	}
	wg.Wait()
}

// try is exec for goroutines other than the test's own.
func (s *suite) try(t testing.TB, m backend.Machine, es backend.ExecSpec) (result, error) {
	var out, errs syncBuffer
	es.Stdout, es.Stderr = &out, &errs
	p, err := execer(t, m).Exec(soon(t), es)
	if err != nil {
		return result{}, err
	}
	e, err := p.Wait(soon(t))
	return result{out.String(), errs.String(), e}, err
}

// testExecBackground: a child that lives on and holds the streams holds up
// neither the result nor what was written before.
func (s *suite) testExecBackground(t *testing.T) {
	m := s.machine(t)
	start := time.Now()
	r := s.exec(t, m, shell("sleep 300 & echo started"))
	if took := time.Since(start); took > quickly {
		t.Errorf("the result took %s", took)
	}
	if r.stdout != "started\n" || r.ExitCode != 0 {
		t.Errorf("the result is %+v", r)
	}
	start = time.Now()
	r = s.exec(t, m, shell("(while :; do echo x; done) & sleep 0.2; echo started >&2"))
	if took := time.Since(start); took > quickly {
		t.Errorf("with a child that writes for ever, the result took %s", took)
	}
	if r.stderr != "started\n" || r.ExitCode != 0 {
		t.Errorf("with a child that writes for ever, stderr is %q, the end %+v", r.stderr, r.Ending)
	}
}

func (s *suite) testExecKill(t *testing.T) {
	m := s.machine(t)
	var out syncBuffer
	es := shell("(while :; do echo x >> beats; sleep 0.05; done) & echo up; wait")
	es.Stdout = &out
	p := s.start(t, m, es)
	eventually(t, "the process is up", func() bool { return out.String() == "up\n" })
	if err := p.Kill(soon(t)); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	e, err := p.Wait(within(t, quickly))
	if err != nil {
		t.Fatalf("Wait after Kill: %v", err)
	}
	if e.ExitCode != 137 || e.Cause != flash.CauseCancelled && e.Cause != flash.CauseSignal {
		t.Errorf("a killed process ends with %+v, want 137", e)
	}
	before := s.sh(t, m, "touch beats; wc -l < beats")
	if after := s.sh(t, m, "sleep 0.5; wc -l < beats"); after != before {
		t.Errorf("its child lives on: it had written %s lines, now %s", before, after)
	}
	if err := p.Kill(soon(t)); err != nil {
		t.Errorf("Kill after the end: %v", err)
	}
}

func (s *suite) testExecWaitAgain(t *testing.T) {
	m := s.machine(t)
	var out syncBuffer
	es := shell("until [ -e go ]; do sleep 0.1; done; echo late; exit 5")
	es.Stdout = &out
	p := s.start(t, m, es)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait with a deadline says %v", err)
	}
	s.sh(t, m, "touch go")
	for range 2 {
		if e, err := p.Wait(soon(t)); err != nil || e.ExitCode != 5 || e.Cause != flash.CauseExited {
			t.Errorf("Wait again says %+v, %v", e, err)
		}
	}
	if out.String() != "late\n" {
		t.Errorf("stdout is %q", out.String())
	}
}

// testExecCallerGone: the context of Exec is for the start alone.
func (s *suite) testExecCallerGone(t *testing.T) {
	m := s.machine(t)
	var out syncBuffer
	es := shell("sleep 0.5; echo done")
	es.Stdout = &out
	ctx, cancel := context.WithCancel(context.Background())
	p, err := execer(t, m).Exec(ctx, es)
	cancel()
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	if e, err := p.Wait(soon(t)); err != nil || e.ExitCode != 0 || out.String() != "done\n" {
		t.Errorf("Wait says %+v, %v, stdout %q", e, err, out.String())
	}
}
