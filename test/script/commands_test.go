package script

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdHTTP sends one request as it stands: the path is not cleaned up, so that
// "..", "//" and the like arrive. BODY may hold \xNN for any byte.
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: http STATUS METHOD PATH [BODY]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	body := ""
	if len(args) == 4 {
		body = unescape(args[3])
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	base := "http://" + ts.Getenv("ADDR")
	req, err := http.NewRequestWithContext(ctx, args[1], base, strings.NewReader(body))
	ts.Check(err)
	req.URL.Opaque = args[2]
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Logf("[%d] %s", resp.StatusCode, answer)
	_, err = ts.Stdout().Write(answer)
	ts.Check(err)
	if resp.StatusCode != want {
		ts.Fatalf("status %d, want %d", resp.StatusCode, want)
	}
}

var escaped = regexp.MustCompile(`\\x[0-9a-f]{2}`)

func unescape(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(e string) string {
		n, _ := strconv.ParseUint(e[2:], 16, 8)
		return string([]byte{byte(n)})
	})
}

// cmdSet keeps something of the last output for later lines.
func cmdSet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: set NAME [REGEXP]")
	}
	out := ts.ReadFile("stdout")
	if len(args) == 1 {
		ts.Setenv(args[0], strings.TrimSpace(out))
		return
	}
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(out)
	if len(m) < 2 {
		ts.Fatalf("no match for %q with a group in:\n%s", args[1], out)
	}
	ts.Setenv(args[0], m[1])
}

// buffer collects what a process writes while others read it.
type buffer struct {
	lock chan struct{}
	b    bytes.Buffer
}

func newBuffer() *buffer { return &buffer{lock: make(chan struct{}, 1)} }

func (b *buffer) Write(p []byte) (int, error) {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	return b.b.String()
}
