package backendtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// secondVar carries a request to the test binary run as a second process.
const secondVar = "FSB_BACKENDTEST_SECOND"

// Opener opens the state that Subject.Arg names, in a second process. The
// image is of kind "busybox"; nil where Info.SharesHost is true.
type Opener func(arg string) (backend.Backend, backend.Image, error)

// Main runs the tests of m, a *testing.M or what wraps one. Where the test
// binary has been started as a second process by one of them, it does what
// that test wants instead. It does not return.
func Main(m interface{ Run() int }, open Opener) {
	raw := os.Getenv(secondVar)
	if raw == "" {
		os.Exit(m.Run())
	}
	if err := serveSecond(raw, open); err != nil {
		fmt.Fprintln(os.Stderr, "second process:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// request asks something of a second process; its reply comes as JSON on
// standard output.
type request struct {
	Arg    string
	Create *backend.Spec   `json:",omitempty"` // without image: make the machine and leave
	Attach *backend.Handle `json:",omitempty"` // attach, and then:
	Exec   []string        `json:",omitempty"`
	Wait   bool            `json:",omitempty"`
}

type reply struct {
	Handle *backend.Handle `json:",omitempty"`
	Stdout string
	Ending *flash.Ending `json:",omitempty"`
	Code   flash.Code    `json:",omitempty"` // of a flash.Error on Attach
}

func serveSecond(raw string, open Opener) error {
	var rq request
	if err := json.Unmarshal([]byte(raw), &rq); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, img, err := open(rq.Arg)
	if err != nil {
		return err
	}
	if err := b.Probe(ctx); err != nil {
		return err
	}
	var rp reply
	if rq.Create != nil {
		rq.Create.Image = img
		m, err := b.Create(ctx, *rq.Create)
		if err != nil {
			return err
		}
		h := m.Handle()
		rp.Handle = &h
		return json.NewEncoder(os.Stdout).Encode(rp) // without Close: as if it had been killed
	}
	m, err := b.Attach(ctx, *rq.Attach)
	if err != nil {
		rp.Code = flash.AsError(err).Code
		return json.NewEncoder(os.Stdout).Encode(rp)
	}
	if len(rq.Exec) > 0 {
		x, ok := backend.As[backend.Execer](m)
		if !ok {
			return fmt.Errorf("%T is no Execer", m)
		}
		var out syncBuffer
		p, err := x.Exec(ctx, backend.ExecSpec{Args: rq.Exec, Stdout: &out})
		if err != nil {
			return err
		}
		if _, err := p.Wait(ctx); err != nil {
			return err
		}
		rp.Stdout = out.String()
	}
	if rq.Wait {
		e, err := m.Wait(ctx)
		if err != nil {
			return err
		}
		rp.Ending = &e
	}
	if err := b.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(rp)
}

// second runs the request in a second process.
func (s *suite) second(t testing.TB, rq request) reply {
	t.Helper()
	rq.Arg = s.Arg
	raw, err := json.Marshal(rq)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(soon(t), self, "-test.run=^$")
	cmd.Env = append(os.Environ(), secondVar+"="+string(raw))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("second process: %v\n%s", err, errs.String())
	}
	var rp reply
	if err := json.Unmarshal(out.Bytes(), &rp); err != nil {
		t.Fatalf("reply of the second process: %v\n%s\n%s (does TestMain call backendtest.Main?)", err, out.String(), errs.String())
	}
	return rp
}
