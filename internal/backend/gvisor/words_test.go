package gvisor

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// TestProgramsThatCannotRun: whatever is wrong with a program is told as a
// shell would tell it, never as our fault.
func TestProgramsThatCannotRun(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	sh(t, m, "ln -s l /tmp/l; mkdir /tmp/d; echo x > /tmp/plain; chmod 644 /tmp/plain")
	for program, code := range map[string]int{
		"/tmp/l": exitNotExecutable, "/tmp/d": exitNotExecutable, "/tmp/plain": exitNotExecutable,
		"/" + strings.Repeat("a", 300): exitNotExecutable, "/tmp/none": exitNotFound, "/tmp/plain/x": exitNotFound,
	} {
		_, err := m.Exec(t.Context(), backend.ExecSpec{Args: []string{program}})
		var start *backend.StartError
		if !errors.As(err, &start) || start.ExitCode != code {
			t.Errorf("%.20s: %v, want exit code %d", program, err, code)
		}
	}
}

func TestWorkingDirThatIsAFile(t *testing.T) {
	b := open(t)
	sp := spec(t)
	sp.Dir = "/bin/busybox"
	m, err := b.Create(t.Context(), sp)
	if err == nil {
		_ = m.Destroy(t.Context())
	}
	if !errors.Is(err, flash.Invalid) {
		t.Errorf("create says %v, want %s", err, flash.Invalid)
	}
}

func TestShellStatus(t *testing.T) {
	exited := func(code int) uint32 { return uint32(code) << 8 }
	for _, c := range []struct{ in, want uint32 }{
		{exited(0), exited(0)}, {exited(43), exited(43)}, {exited(255), exited(255)}, {exited(128), exited(128)},
		{exited(139), uint32(syscall.SIGSEGV)}, {exited(137), uint32(syscall.SIGKILL)}, {uint32(syscall.SIGKILL), uint32(syscall.SIGKILL)},
	} {
		if got := shellStatus(c.in); got != c.want {
			t.Errorf("shellStatus(%#x) is %#x, want %#x", c.in, got, c.want)
		}
	}
}
