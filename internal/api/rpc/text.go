package rpc

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// outputBudget is what stdout and stderr of one reply may come to, in bytes of
// UTF-8. Published clients refuse messages above 4 MiB.
const outputBudget = 4<<20 - 128<<10

// texts turns a command's output into valid UTF-8 that fits one message. What
// is cut is cut out of the middle, with a line in its place that says so.
func texts(stdout, stderr []byte) (string, string) {
	out, err := textLen(stdout), textLen(stderr)
	if out+err > outputBudget {
		err = min(err, max(outputBudget/2, outputBudget-out))
		out = min(out, outputBudget-err)
	}
	return text(stdout, out), text(stderr, err)
}

// textLen returns the length of b as text.
func textLen(b []byte) int {
	n := 0
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		n += runeLen(r, size)
		b = b[size:]
	}
	return n
}

// runeLen is how long a decoded rune is as text: a byte that is no UTF-8
// becomes U+FFFD.
func runeLen(r rune, size int) int {
	if r == utf8.RuneError && size == 1 {
		return len("\uFFFD")
	}
	return size
}

// text returns b as text of at most limit bytes.
func text(b []byte, limit int) string {
	var s strings.Builder
	if textLen(b) <= limit {
		s.Grow(limit)
		appendText(&s, b)
		return s.String()
	}
	const noteLen = 96
	half := max(0, (limit-noteLen)/2)
	head := 0
	for left := half; head < len(b); {
		r, size := utf8.DecodeRune(b[head:])
		if left -= runeLen(r, size); left < 0 {
			break
		}
		head += size
	}
	tail := len(b)
	for left := half; tail > head; {
		r, size := utf8.DecodeLastRune(b[head:tail])
		if left -= runeLen(r, size); left < 0 {
			break
		}
		tail -= size
	}
	s.Grow(limit)
	appendText(&s, b[:head])
	fmt.Fprintf(&s, "\n[... %d bytes cut here: a gRPC reply holds 4 MiB ...]\n", tail-head)
	appendText(&s, b[tail:])
	return s.String()
}

func appendText(s *strings.Builder, b []byte) {
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			s.WriteString("\uFFFD")
		} else {
			s.Write(b[:size])
		}
		b = b[size:]
	}
}
