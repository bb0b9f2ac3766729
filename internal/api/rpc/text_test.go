package rpc

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// However output looks, it becomes valid UTF-8 within the limit, whole if it
// fits and with both of its ends if not.
func TestText(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(r, "bytes")
		if rapid.Bool().Draw(r, "valid") {
			b = []byte(rapid.String().Draw(r, "text"))
		}
		b = bytes.Repeat(b, rapid.IntRange(1, 50).Draw(r, "times"))
		limit := rapid.IntRange(200, 2000).Draw(r, "limit")
		got := text(b, limit)
		if !utf8.ValidString(got) || len(got) > limit {
			r.Fatalf("%d bytes for a limit of %d: %q", len(got), limit, got)
		}
		whole := strings.Map(func(c rune) rune { return c }, string(b)) // bad bytes become U+FFFD
		if len(whole) != textLen(b) {
			r.Fatalf("length %d, want %d", textLen(b), len(whole))
		}
		if len(whole) <= limit {
			if got != whole {
				r.Fatalf("%q, want %q", got, whole)
			}
			return
		}
		head, tail, ok := strings.Cut(got, "\n[... ")
		if _, tail, ok2 := strings.Cut(tail, "...]\n"); !ok || !ok2 || !strings.HasPrefix(whole, head) || !strings.HasSuffix(whole, tail) || head == "" || tail == "" {
			r.Fatalf("cut badly: %q", got)
		}
	})
}

func TestTextsShareTheBudget(t *testing.T) {
	big, small := bytes.Repeat([]byte("x"), 2*outputBudget), []byte("small")
	for _, c := range []struct{ stdout, stderr []byte }{{big, small}, {small, big}, {big, big}, {big, nil}, {small, small}} {
		out, err := texts(c.stdout, c.stderr)
		if len(out)+len(err) > outputBudget {
			t.Errorf("%d + %d bytes", len(out), len(err))
		}
		if len(c.stdout) < 10 && out != string(c.stdout) || len(c.stderr) < 10 && err != string(c.stderr) {
			t.Error("the small one was cut")
		}
		if len(c.stdout)+len(c.stderr) > outputBudget && len(out)+len(err) < outputBudget-256 {
			t.Errorf("only %d + %d bytes are used", len(out), len(err))
		}
	}
}
