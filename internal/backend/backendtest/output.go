package backendtest

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

func (s *suite) outputTests() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"OutputLarge":        s.testOutputLarge,
		"OutputBackPressure": s.testOutputBackPressure,
		"OutputNeverLost":    s.testOutputNeverLost,
		"OutputReaderFails":  s.testOutputReaderFails,
	}
}

// noise returns n random bytes.
func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return string(b)
}

// counter hashes and counts what is written to it.
type counter struct {
	hash.Hash
	n atomic.Int64
}

func newCounter() *counter { return &counter{Hash: sha256.New()} }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.Hash.Write(p)
}

func (s *suite) testOutputLarge(t *testing.T) {
	m := s.machine(t)
	sum := s.sh(t, m, "dd if=/dev/urandom of=big bs=65536 count=160 2>/dev/null; sha256sum < big | cut -c1-64")
	out, errs := newCounter(), newCounter()
	es := shell("cat big & cat big >&2; wait")
	es.Stdout, es.Stderr = out, errs
	if e, err := s.start(t, m, es).Wait(soon(t)); err != nil || e.ExitCode != 0 {
		t.Fatalf("Wait: %+v, %v", e, err)
	}
	for name, c := range map[string]*counter{"stdout": out, "stderr": errs} {
		if got := fmt.Sprintf("%x", c.Sum(nil)); got != sum || c.n.Load() != 10*mib {
			t.Errorf("%s: %d bytes with hash %s, want %d with %s", name, c.n.Load(), got, 10*mib, sum)
		}
	}
}

// gate is a writer that blocks until it is opened.
type gate struct {
	open chan struct{}
	w    io.Writer
}

func (g gate) Write(p []byte) (int, error) {
	<-g.open
	return g.w.Write(p)
}

// testOutputBackPressure: a process whose output nobody takes has to wait; all
// of its output arrives once somebody does.
func (s *suite) testOutputBackPressure(t *testing.T) {
	const total, bound = 64, 24 // MiB
	m := s.machine(t)
	out := newCounter()
	g := gate{make(chan struct{}), out}
	es := shell("i=0; while [ $i -lt $1 ]; do dd if=/dev/zero bs=1048576 count=1 2>/dev/null; i=$((i+1)); echo $i > progress; done", strconv.Itoa(total))
	es.Stdout = g
	p := s.start(t, m, es)
	opened := sync.OnceFunc(func() { close(g.open) })
	defer opened()
	read := func() int {
		n, _ := strconv.Atoi(s.sh(t, m, "cat progress 2>/dev/null || echo 0"))
		return n
	}
	for last := -1; ; {
		n := read()
		if n > bound {
			t.Errorf("the process has written %d MiB though nobody reads", n)
			break
		}
		if n == last {
			break
		}
		last = n
		time.Sleep(time.Second)
	}
	opened()
	if e, err := p.Wait(soon(t)); err != nil || e.ExitCode != 0 || out.n.Load() != total*mib {
		t.Errorf("%+v, %v, %d bytes arrive, want %d", e, err, out.n.Load(), total*mib)
	}
}

func (s *suite) testOutputNeverLost(t *testing.T) {
	m := s.machine(t)
	runs := 200
	if testing.Short() {
		runs = 50
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < runs; i += 4 {
				nonce := fmt.Sprintf("%d-%d", i, rand.Uint64())
				r, err := s.try(t, m, backend.ExecSpec{Args: []string{"echo", nonce}})
				if err != nil || r.stdout != nonce+"\n" || r.ExitCode != 0 {
					t.Errorf("run %d: %v, %+v, want %q", i, err, r, nonce)
				}
			}
		})
	}
	wg.Wait()
}

// broken is a writer that fails.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// testOutputReaderFails: a writer that fails must not leave the process, or
// the one who waits for it, stuck.
func (s *suite) testOutputReaderFails(t *testing.T) {
	m := s.machine(t)
	es := shell("dd if=/dev/zero bs=65536 count=64 2>/dev/null; exit 0")
	es.Stdout = broken{}
	if _, err := s.start(t, m, es).Wait(within(t, 2*quickly)); err != nil {
		t.Errorf("Wait: %v", err)
	}
}
