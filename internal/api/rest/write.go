package rest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"unicode/utf8"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// WriteProblem answers a request with the problem document of an error, and
// notes the error in the request's exchange.
func WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	x := api.ExchangeOf(r.Context())
	x.Err = err
	p := api.ProblemOf(err, x.RequestID)
	b, jsonErr := json.Marshal(&p)
	if jsonErr != nil { // can't happen: strings and an int
		b = []byte(`{"code":"internal"}`)
	}
	write(w, p.Status, api.ProblemType, b)
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	write(w, status, "application/json", b)
	return nil
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has left if this fails
}

var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 32<<10) }}

// writeExec answers with how a command went. Output goes out piece by piece,
// never as a second copy: there may be many megabytes of it.
func writeExec(w http.ResponseWriter, res *flash.ExecResult, python bool) error {
	// Everything but the output is small and left to encoding/json.
	rest := struct {
		ExitCode      int     `json:"exit_code"`
		DurationMS    float64 `json:"duration_ms"`
		Error         string  `json:"error"`
		Cause         string  `json:"cause"`
		Truncated     bool    `json:"truncated"`
		StdoutDropped int64   `json:"stdout_dropped_bytes"`
		StderrDropped int64   `json:"stderr_dropped_bytes"`
		Message       string  `json:"message,omitempty"`
	}{
		res.Ending.ExitCode, api.Milliseconds(res.Duration), api.ExecError(res.Ending), string(res.Ending.Cause),
		res.Truncated(), res.StdoutDropped, res.StderrDropped, res.Ending.Message,
	}
	tail, err := json.Marshal(&rest)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	b := buffers.Get().(*bufio.Writer)
	b.Reset(w)
	// A failed write means that the client has left; bufio remembers it.
	_, _ = b.WriteString(`{`)
	if python {
		_, _ = b.WriteString(`"result":"`)
		writeText(b, res.Stdout)
		if res.Ending.ExitCode != 0 {
			writeText(b, res.Stderr)
		}
		_, _ = b.WriteString(`",`)
	}
	_, _ = b.WriteString(`"stdout":"`)
	writeText(b, res.Stdout)
	_, _ = b.WriteString(`","stderr":"`)
	writeText(b, res.Stderr)
	_, _ = b.WriteString(`",`)
	_, _ = b.Write(tail[1:])
	_ = b.Flush()
	b.Reset(io.Discard)
	buffers.Put(b)
	return nil
}

// escape is how a byte of ASCII is written in a JSON string, "" for as it is.
// They are strings made once: output may hold millions of them.
var escape = func() (e [utf8.RuneSelf]string) {
	for c := range 0x20 {
		e[c] = fmt.Sprintf(`\u%04x`, c)
	}
	e['\n'], e['\r'], e['\t'], e['"'], e['\\'] = `\n`, `\r`, `\t`, `\"`, `\\`
	return e
}()

// writeText writes the inside of a JSON string. Each byte that is no UTF-8
// becomes U+FFFD. The Unicode line ends are escaped, since clients split
// streams at them.
func writeText(b *bufio.Writer, s []byte) {
	start := 0 // of what is yet to be written as it is
	instead := func(from, to int, text string) {
		_, _ = b.Write(s[start:from])
		_, _ = b.WriteString(text)
		start = to
	}
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if e := escape[c]; e != "" {
				instead(i, i+1, e)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			instead(i, i+n, "\uFFFD")
		case r == 0x85:
			instead(i, i+n, `\u0085`)
		case r == 0x2028:
			instead(i, i+n, `\u2028`)
		case r == 0x2029:
			instead(i, i+n, `\u2029`)
		}
		i += n
	}
	_, _ = b.Write(s[start:])
}

// clip shortens what a request said so that it fits a sentence.
func clip(s string) string {
	if len(s) <= 80 {
		return strconv.QuoteToASCII(s)
	}
	return strconv.QuoteToASCII(s[:80]) + "..."
}
