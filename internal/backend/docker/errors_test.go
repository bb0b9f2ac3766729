package docker

import (
	"errors"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// The texts are as engines 20.10 and later, with runc and with runsc, word them.
func TestExecStartError(t *testing.T) {
	for text, code := range map[string]int{
		`OCI runtime exec failed: exec failed: unable to start container process: exec: "prog": executable file not found in $PATH: unknown`:                         127,
		`OCI runtime exec failed: exec failed: unable to start container process: exec: "prog": stat prog: no such file or directory: unknown`:                       127,
		`OCI runtime exec failed: exec failed: unable to start container process: exec: "prog": permission denied: unknown`:                                          126,
		`OCI runtime exec failed: exec failed: unable to start container process: exec: "prog": is a directory: unknown`:                                             126,
		`OCI runtime exec failed: exec failed: unable to start container process: exec prog: exec format error`:                                                      126,
		`OCI runtime exec failed: exec failed: container_linux.go:380: starting container process caused: exec: "prog": executable file not found in $PATH: unknown`: 127,
	} {
		err := execStartError("sb-1", "prog", "", "", text+"\r\n")
		var se *backend.StartError
		if !errors.As(err, &se) || se.ExitCode != code {
			t.Errorf("%s: %v, want exit code %d", text, err, code)
		}
		if !execRefusal.MatchString(text) {
			t.Errorf("not recognised as a refusal: %s", text)
		}
	}
	for text, word := range map[string]string{
		"unable to find user bob: no matching entries in passwd file\r\n":                                                                                                "user: \"bob\" is not in the sandbox's /etc/passwd or /etc/group",
		`OCI runtime exec failed: exec failed: unable to start container process: chdir to cwd ("/nodir") set in config.json failed: no such file or directory: unknown`: `working directory: "/nodir" is not a folder in the sandbox`,
	} {
		err := execStartError("sb-1", "prog", "bob", "/nodir", text)
		if !errors.Is(err, flash.Invalid) || flash.AsError(err).Message != word {
			t.Errorf("%s: %v, want %s", text, err, word)
		}
	}
	if err := execStartError("sb-1", "prog", "", "", `OCI runtime exec failed: cannot execute in container "0" in state stopped: unknown`); !errors.Is(err, flash.Conflict) {
		t.Errorf("in a container that has ended: %v, want a conflict", err)
	}
	if err := execStartError("sb-1", "prog", "", "", "something new"); flash.AsError(err).Code != flash.Internal {
		t.Errorf("an unknown text is %v, want an internal error", err)
	}
}

func TestProcessEnding(t *testing.T) {
	for code, cause := range map[int]flash.Cause{
		0: flash.CauseExited, 1: flash.CauseExited, 127: flash.CauseExited, 128: flash.CauseExited, 137: flash.CauseSignal,
		139: flash.CauseSignal, 192: flash.CauseSignal, 193: flash.CauseExited, 255: flash.CauseExited,
	} {
		if e := processEnding(code); e.Cause != cause || e.ExitCode != code {
			t.Errorf("%d: %+v, want %s", code, e, cause)
		}
	}
}
