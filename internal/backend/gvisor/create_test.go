package gvisor

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

func TestProbe(t *testing.T) {
	b := open(t)
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for h := range b.List(t.Context()) {
		t.Errorf("the probe left %s", h.ID)
	}
	caps := backend.Capabilities(b)
	if len(caps) != 5 {
		t.Errorf("capabilities = %v", caps)
	}
}

// TestProbeLeftovers: a sandbox's name may look like a probe's, and what a
// killed probe has left goes once it is old.
func TestProbeLeftovers(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) { s.ID = "probe-mine" })
	var found []flash.ID
	for h, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, h.ID)
	}
	if len(found) != 1 || found[0] != m.id {
		t.Errorf("List has %v, want %s", found, m.id)
	}
	if _, err := flash.ParseID(probePrefix + "x"); err == nil {
		t.Error("a sandbox can have a probe's name")
	}
	g, err := m.cgroup()
	if err != nil {
		t.Fatal(err)
	}
	var groups []string // of a probe without a directory
	for _, d := range g.Dirs() {
		groups = append(groups, strings.Replace(d, string(m.id), probePrefix+"c", 1))
	}
	old, young := b.dir(probePrefix+"a"), b.dir(probePrefix+"b")
	for _, d := range append(groups, old, young) {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(groups, old) {
		if exists(d) {
			t.Errorf("%s is left", d)
		}
	}
	if !exists(young) {
		t.Error("the sandbox of a probe under way is removed")
	}
	if err := os.Chtimes(young, long, long); err != nil {
		t.Fatal(err)
	}
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exists(young) {
		t.Error("the sandbox of a probe stays when it is old")
	}
	if got := sh(t, m, "echo alive"); got != "alive\n" {
		t.Errorf("%q", got)
	}
}

// TestInside looks at a machine as its commands see it.
func TestInside(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) {
		s.Dir = "/work/deep"
		s.MemoryBytes = 256 << 20
	})
	for _, c := range []struct{ script, want string }{
		{"pwd", "/work/deep"},
		{"hostname", "box"},
		{"cat /etc/hostname", "box"},
		{"echo $GREETING $HOME", "hello /root"},
		{"id -u; id -g", "0\n0"},
		{"grep -c localhost /etc/hosts", "2"},
		{"ping -c1 -W2 127.0.0.1 >/dev/null && echo up", "up"},
		{"ping -c1 -W2 box >/dev/null && echo up", "up"},
		{"(echo hi | nc -l -p 4000 &) ; sleep 0.2; nc 127.0.0.1 4000 </dev/null", "hi"},
		{"awk -F: '/:/{print $1}' /proc/net/dev | tr -d ' '", "lo"},
		{"stat -c '%a %u' /tmp", "1777 0"},
		{"awk '/MemTotal/{print $2}' /proc/meminfo", "262144"},
		{"touch /tmp/x /root/x /dev/shm/x && echo ok", "ok"},
		{"grep NoNewPrivs /proc/self/status | tr -d '\\t'", "NoNewPrivs:1"},
		{"grep CapEff /proc/self/status | tr -d '\\t'", "CapEff:00000000a80425fb"},
		{"mount -t tmpfs none /mnt 2>/dev/null || echo refused", "refused"},
		{"cat /proc/1/comm", "sh"},
	} {
		if got := strings.TrimSpace(sh(t, m, c.script)); got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
	}
	other := create(t, b, nil)
	if got := sh(t, other, "ls /root /tmp"); strings.Contains(got, "x") {
		t.Errorf("files of another sandbox: %q", got)
	}
}

func TestUsers(t *testing.T) {
	b := open(t)
	m := create(t, b, func(s *backend.Spec) { s.User = "user" })
	if got := sh(t, m, "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status"); got != "1000\n1000\n1000 2000\n/home/user\nCapEff:\t0000000000000000\n" {
		t.Errorf("as the machine's user: %q", got)
	}
	if got := sh(t, m, "cat /proc/1/status | grep -E '^(Uid|CapEff)'"); got != "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n" {
		t.Errorf("the main command: %q", got)
	}
	r, err := run(t, m, backend.ExecSpec{Args: []string{"id", "-u"}, User: "0"})
	if err != nil || r.stdout != "0\n" {
		t.Errorf("as user 0: %+v, %v", r, err)
	}
	s := spec(t)
	s.User = "nobody-here"
	_, err = b.Create(t.Context(), s)
	if !errors.Is(err, flash.Invalid) || !strings.Contains(err.Error(), "nobody-here") {
		t.Errorf("unknown user: %v", err)
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	b := open(t)
	for _, c := range []struct{ arg, want string }{
		{"no-such-program", "not found in the image"},
		{"/no/such/program", "not found in the image"},
		{"noexec", "permission denied"},
		{"/bin/noexec", "permission denied"},
		{"/bin", ""},
		{"/bin/garbage", ""},
	} {
		s := spec(t)
		s.Args = []string{c.arg}
		_, err := b.Create(t.Context(), s)
		if !errors.Is(err, flash.Invalid) || !strings.Contains(err.Error(), c.arg) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.arg, err)
		} else {
			t.Log(err)
		}
	}
	for h := range b.List(t.Context()) {
		t.Errorf("%s is left", h.ID)
	}
}

// TestShortCommand checks that the exit code of a command that ends at once is
// never missed.
func TestShortCommand(t *testing.T) {
	b := open(t)
	for i := range 10 {
		m := create(t, b, func(s *backend.Spec) { s.Args = []string{"sh", "-c", "exit 43"} })
		if e := wait(t, m); e.Cause != flash.CauseExited || e.ExitCode != 43 {
			t.Errorf("run %d: %+v", i, e)
		}
		if st, err := m.Status(t.Context()); err != nil || st != backend.StatusEnded {
			t.Errorf("status %s, %v", st, err)
		}
		if err := m.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestCreateCancelled(t *testing.T) {
	b := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Create(ctx, spec(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("Create with a cancelled context: %v", err)
	}
	for h := range b.List(t.Context()) {
		t.Errorf("%s is left", h.ID)
	}
}
