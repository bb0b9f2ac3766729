package servicetest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	flash "github.com/flash-sandbox/flash-sandbox"
)

func testExec(t *testing.T, h *house) {
	sb := h.create(t)
	for _, c := range []struct {
		name           string
		command        []string
		code           int
		stdout, stderr string
	}{
		{"echo", []string{"echo", "hi"}, 0, "hi\n", ""},
		{"no output", []string{"true"}, 0, "", ""},
		{"exit code", []string{"sh", "-c", "exit 43"}, 43, "", ""},
		{"both streams", []string{"sh", "-c", "echo out; echo err >&2; exit 1"}, 1, "out\n", "err\n"},
		{"no shell", []string{"echo", "$HOME", "a  b", "*", "'", `"`, `\n`}, 0, "$HOME a  b * ' \" \\n\n", ""},
		{"empty argument", []string{"sh", "-c", "echo $#", "sh", "", ""}, 0, "2\n", ""},
		{"unicode", []string{"printf", "%s", "hei på dæ 日本 🎉\u2028\u0085\t\r\n\x7f<>&"}, 0, "hei på dæ 日本 🎉\u2028\u0085\t\r\n\x7f<>&", ""},
		{"killed by a signal", []string{"sh", "-c", "kill -9 $$"}, 137, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: c.command})
			if err != nil {
				t.Fatal(err)
			}
			wantResult(t, res, c.code, c.stdout, c.stderr)
			want := flash.CauseExited
			if c.code > 128 {
				want = flash.CauseSignal
			}
			if res.Ending.Cause != want || res.Truncated() || res.Duration <= 0 {
				t.Errorf("cause %q, truncated %v, took %v", res.Ending.Cause, res.Truncated(), res.Duration)
			}
		})
	}
	for code, command := range map[int][]string{127: {"no-such-program", "x"}, 126: {"/etc"}} {
		res, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: command})
		if err != nil {
			t.Fatalf("%v: %v", command, err)
		}
		if res.Ending.ExitCode != code || !strings.Contains(string(res.Stderr), command[0]) {
			t.Errorf("%v: exit code %d, stderr %q; want %d and the name", command, res.Ending.ExitCode, res.Stderr, code)
		}
	}
	// The sandbox has come through all of it.
	h.state(t, sb.ID, flash.Running)
}

func testExecInvalid(t *testing.T, h *house) {
	sb := h.create(t)
	for _, command := range [][]string{nil, {}, {"", "x"}, {"echo", "a\x00b"}, {"echo", strings.Repeat("x", flash.MaxArgsBytes)}} {
		_, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: command})
		wantError(t, err, flash.Invalid, "command")
	}
	if !h.Narrow {
		_, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: []string{"true"}, Timeout: -time.Second})
		wantError(t, err, flash.Invalid, "timeout_ms")
	}
}

func testExecBytes(t *testing.T, h *house) {
	sb := h.create(t)
	res := h.sh(t, sb.ID, `printf 'a\377\376b\000c\303'; printf '\200' >&2`)
	stdout, stderr := "a\xff\xfeb\x00c\xc3", "\x80"
	if h.Text {
		stdout, stderr = "a\uFFFD\uFFFDb\x00c\uFFFD", "\uFFFD"
	}
	wantResult(t, res, 0, stdout, stderr)
}

func testExecTruncated(t *testing.T, h *house) {
	sb := h.create(t)
	const lines, width = 1 << 20, 32 // 32 MiB, bounded in memory
	res := h.sh(t, sb.ID, fmt.Sprintf("echo first; yes 0123456789012345678901234567890 | head -c %d; echo last; echo whole >&2", lines*width))
	total := int64(lines*width + len("first\nlast\n"))
	if !res.Truncated() || res.StdoutDropped <= 0 || res.StderrDropped != 0 || string(res.Stderr) != "whole\n" {
		t.Fatalf("dropped %d and %d, stderr %s", res.StdoutDropped, res.StderrDropped, short(res.Stderr))
	}
	if kept := total - res.StdoutDropped; kept > int64(h.OutputLimit) || kept <= 0 {
		t.Errorf("kept %d bytes, the limit is %d", kept, h.OutputLimit)
	}
	if int64(len(res.Stdout)) > int64(h.OutputLimit)+256 {
		t.Errorf("got %d bytes, the limit is %d", len(res.Stdout), h.OutputLimit)
	}
	if !bytes.HasPrefix(res.Stdout, []byte("first\n")) || !bytes.HasSuffix(res.Stdout, []byte("last\n")) || !bytes.Contains(res.Stdout, []byte("bytes")) {
		t.Errorf("head %s, tail %s", short(res.Stdout[:64]), short(res.Stdout[len(res.Stdout)-64:]))
	}
	if !utf8.Valid(res.Stdout) {
		t.Error("the cut broke the text")
	}
}

func testExecTimeout(t *testing.T, h *house) {
	if h.Narrow {
		t.Skip("the wire can't say it")
	}
	sb := h.create(t)
	began := time.Now()
	res, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: []string{"sh", "-c", "echo begun; sleep 300"}, Timeout: 400 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if res.Ending.Cause != flash.CauseTimeout || res.Ending.ExitCode == 0 || string(res.Stdout) != "begun\n" {
		t.Errorf("ending %+v, stdout %q", res.Ending, res.Stdout)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
}

func testExecCancelled(t *testing.T, h *house) {
	sb := h.create(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(400*time.Millisecond, cancel)
	began := time.Now()
	_, err := h.Sandboxes.Exec(ctx, sb.ID, flash.ExecOptions{Command: []string{"sh", "-c", "echo $$ > pid; exec sleep 300"}})
	if e := flash.AsError(err); e == nil || e.Code != flash.Canceled {
		t.Errorf("error %v, want canceled", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
	// The command is killed, soon.
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if res := h.sh(t, sb.ID, "kill -0 $(cat pid) 2>/dev/null && grep -v ') Z ' /proc/$(cat pid)/stat"); res.Ending.ExitCode != 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command goes on after its caller has left")
		}
	}

	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = h.Sandboxes.Exec(ctx, sb.ID, flash.ExecOptions{Command: []string{"sleep", "300"}})
	if e := flash.AsError(err); e == nil || e.Code != flash.Timeout {
		t.Errorf("error %v, want timeout", err)
	}
}

func testExecParallel(t *testing.T, h *house) {
	sb := h.create(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			want := fmt.Sprintf("number %d\n", i)
			res, err := h.Sandboxes.Exec(t.Context(), sb.ID, flash.ExecOptions{Command: []string{"sh", "-c", fmt.Sprintf("echo number %d; exit %d", i, i)}})
			if err != nil {
				t.Errorf("exec %d: %v", i, err)
				return
			}
			wantResult(t, res, i, want, "")
		})
	}
	wg.Wait()
}

func testPython(t *testing.T, h *house) {
	sb := h.create(t)
	run := func(code string) *flash.ExecResult {
		t.Helper()
		res, err := h.Sandboxes.RunPython(t.Context(), sb.ID, flash.PythonOptions{Code: code})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	wantResult(t, run("print('hei', 6*7)"), 0, "hei 42\n", "")
	wantResult(t, run(""), 0, "", "")
	long := "x = '" + strings.Repeat("y", 100<<10) + "'\nprint(len(x))"
	wantResult(t, run(long), 0, "102400\n", "")

	res := run("print('before')\nraise ValueError('told')")
	if res.Ending.ExitCode != 1 || !strings.Contains(string(res.Stdout)+string(res.Stderr), "ValueError: told") || !strings.HasPrefix(string(res.Stdout), "before\n") {
		t.Errorf("exit code %d, stdout %q, stderr %q", res.Ending.ExitCode, res.Stdout, res.Stderr)
	}
	if !h.Narrow && strings.Contains(string(res.Stdout), "ValueError") {
		t.Errorf("the trace is on stdout: %q", res.Stdout)
	}
	if res := run("import sys; sys.exit(9)"); res.Ending.ExitCode != 9 {
		t.Errorf("exit code %d, want 9", res.Ending.ExitCode)
	}
	for _, code := range []string{"print(1)\x00", strings.Repeat(" ", flash.MaxPythonBytes+1)} {
		_, err := h.Sandboxes.RunPython(t.Context(), sb.ID, flash.PythonOptions{Code: code})
		wantError(t, err, flash.Invalid, "code")
	}

	plain := h.create(t, func(o *flash.CreateOptions) { o.Image = h.PlainImage; o.Command = []string{"sleep", "300"} })
	_, err := h.Sandboxes.RunPython(t.Context(), plain.ID, flash.PythonOptions{Code: "print(1)"})
	wantError(t, err, flash.Unsupported, "Python")
}

func testPlatformInfo(t *testing.T, h *house) {
	sb := h.create(t)
	p, err := h.Sandboxes.PlatformInfo(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	if p.SandboxID != string(sb.ID) || p.System != "Linux" || p.Machine == "" || p.Release == "" || p.Backend == "" || p.Isolation == "" ||
		p.MemoryMB != 256 || p.CPUCores != 1 || p.Image != h.Image {
		t.Errorf("got %+v", p)
	}
}

func testMetrics(t *testing.T, h *house) {
	sb := h.create(t)
	for range 2 {
		m, err := h.Sandboxes.Metrics(t.Context(), sb.ID)
		if err != nil {
			t.Fatal(err)
		}
		if m.MemoryLimitBytes != 256<<20 || m.PidsCurrent == 0 || m.MemoryPercent < 0 || m.MemoryPercent > 100 || m.CPUPercent < 0 {
			t.Errorf("got %+v", m)
		}
	}
}
