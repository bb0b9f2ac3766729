package manager

import (
	"bytes"
	"fmt"
	"sync"
)

// clip is a writer of bounded memory: it keeps the first and the last half of
// its limit and counts what it drops between them. It never blocks and never
// fails, so that a command is not held up by output nobody will see. What is
// written after result is dropped: a command that could not be killed may go
// on writing.
type clip struct {
	mu    sync.Mutex
	done  bool
	half  int
	head  []byte
	tail  []byte // ring once full
	next  int    // where the ring's oldest byte is
	total int64
}

func newClip(limit int) *clip { return &clip{half: max(limit/2, 1)} }

// Write implements io.Writer.
func (c *clip) Write(p []byte) (int, error) {
	n := len(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return n, nil
	}
	c.total += int64(n)
	if room := c.half - len(c.head); room > 0 {
		k := min(room, len(p))
		c.head = append(c.head, p[:k]...)
		p = p[k:]
	}
	if len(p) > c.half { // only its end can matter
		p = p[len(p)-c.half:]
	}
	if room := c.half - len(c.tail); room > 0 {
		k := min(room, len(p))
		c.tail = append(c.tail, p[:k]...)
		p = p[k:]
	}
	for len(p) > 0 {
		k := copy(c.tail[c.next:], p)
		c.next = (c.next + k) % c.half
		p = p[k:]
	}
	return n, nil
}

// result returns what was kept, with a line in the place of what was dropped,
// and how many bytes that were.
func (c *clip) result() ([]byte, int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	dropped := c.total - int64(len(c.head)) - int64(len(c.tail))
	if dropped == 0 {
		if len(c.tail) == 0 {
			return c.head, 0
		}
		return append(append(c.head, c.tail[c.next:]...), c.tail[:c.next]...), 0
	}
	var b bytes.Buffer
	b.Grow(len(c.head) + len(c.tail) + 64)
	b.Write(c.head)
	fmt.Fprintf(&b, "\n[... %d bytes dropped here ...]\n", dropped)
	b.Write(c.tail[c.next:])
	b.Write(c.tail[:c.next])
	return b.Bytes(), dropped
}
