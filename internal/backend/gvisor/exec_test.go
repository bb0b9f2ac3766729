package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// TestExecGivenUp: a command whose caller gives up while it starts does not
// run on.
func TestExecGivenUp(t *testing.T) {
	b := open(t)
	m := create(t, b, nil)
	sh(t, m, "true")
	var want []string
	refused := 0
	for i := range 60 {
		length := fmt.Sprint(5000 + i)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Microsecond+time.Duration(i)*100*time.Microsecond)
		var out bytes.Buffer
		_, err := m.Exec(ctx, backend.ExecSpec{Args: []string{"sleep", length}, Stdout: &out, Stderr: &out})
		cancel()
		switch {
		case err == nil:
			want = append(want, length)
		case errors.Is(err, context.DeadlineExceeded):
			refused++
		default:
			t.Errorf("after %d: %v", i, err)
		}
	}
	t.Logf("%d of 60 were given up", refused)
	if refused == 0 {
		t.Fatal("no command was given up in time")
	}
	var got []string
	for range 50 {
		got = strings.Fields(sh(t, m, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null | sed -n 's/^sleep \\([0-9]*\\) *$/\\1/p' | sort"))
		if strings.Join(got, " ") == strings.Join(want, " ") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("commands %q run, want only those not given up: %q", got, want)
}
