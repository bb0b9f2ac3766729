package gvisor

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

// TestSideEffects holds what linking gVisor does to a program to what is
// known: four flags on the command line that nobody parses in a daemon with a
// flag set of its own.
func TestSideEffects(t *testing.T) {
	var names []string
	flag.VisitAll(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") {
			names = append(names, f.Name)
		}
	})
	if want := []string{"coverage-fd", "debug-log-fd", "log-fd", "panic-log-fd"}; !slices.Equal(names, want) {
		t.Errorf("flags of gVisor are %v, want %v", names, want)
	}
}

func TestIsUmounter(t *testing.T) {
	for _, c := range []struct {
		args string
		want bool
	}{
		{"/proc/self/exe umount --sync-fd=3 /proc", true},
		{"/proc/self/exe", false},
		{"/proc/self/exe serve --sync-fd=3 x", false},
		{"/usr/bin/fsbd umount --sync-fd=3 /proc", false},
	} {
		if got := isUmounter(strings.Fields(c.args)); got != c.want {
			t.Errorf("%s: %v", c.args, got)
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Config{StateDir: "relative"}); err == nil {
		t.Error("a relative state directory is accepted")
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		text string
		code int
	}{
		{`error finding executable "x" in PATH [/bin]: no such file or directory`, exitNotFound},
		{`failed to load /x: no such file or directory`, exitNotFound},
		{`failed to load /etc/passwd: permission denied`, exitNotExecutable},
		{`failed to load /bin/garbage: exec format error`, exitNotExecutable},
		{`container "sandbox" not started`, 0},
		{`creating fd map: permission denied`, 0},
	} {
		if code, _ := classify(c.text); code != c.code {
			t.Errorf("%s: %d, want %d", c.text, code, c.code)
		}
	}
}

func TestAllStopped(t *testing.T) {
	running := "goroutine 5 [select]:\nkernel.(*Task).run(0x1)\n\n"
	stopped := "goroutine 6 [sync.Cond.Wait]:\nkernel.(*Task).doStop(0x1)\nkernel.(*Task).run(0x1)\n\n"
	other := "goroutine 1 [running]:\nmain.main()\n\n"
	for _, c := range []struct {
		stacks  string
		want    bool
		wantErr bool
	}{
		{other + stopped + stopped, true, false},
		{other + stopped + running, false, false},
		{other, false, true},
	} {
		got, err := allStopped(c.stacks)
		if got != c.want || (err != nil) != c.wantErr {
			t.Errorf("%q: %v, %v", c.stacks, got, err)
		}
	}
}
