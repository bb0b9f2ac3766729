package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

const (
	// silence is how long nothing must come before the engine is asked whether
	// the process has started, or still lives.
	silence = 40 * time.Millisecond
	// linger is how long after the end of the process its streams must be
	// silent to be left to the children that hold them open.
	linger = 60 * time.Millisecond
	// longestPoll is how often a remote engine is asked about a silent process.
	longestPoll = time.Second
)

// stream is the state of the output of one process, shared by the reader and
// the goroutine that decides when the process is over.
type stream struct {
	lastRead atomic.Int64  // time of the last byte, in ns
	writing  atomic.Bool   // a frame is being handed to a Writer that may block
	frame    chan struct{} // holds one token after a frame has arrived
	done     chan struct{} // closed when the stream has ended; held may then be read
	held     []byte        // a first frame that may be the engine's refusal; see read
}

// run sees the process through: it moves output, learns whether the process
// started, and when it has ended.
func (p *Process) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st := &stream{frame: make(chan struct{}, 1), done: make(chan struct{})}
	st.lastRead.Store(time.Now().UnixNano())
	go p.read(st)

	var (
		eof      = st.done             // nil once the stream's end has been seen
		exited   = make(chan struct{}) // closed when the host tells that the process has ended
		watched  = exited              // nil once that has been seen, or while nobody watches
		watching bool
		ending   bool      // the stream or the process has ended
		since    time.Time // when it was seen to
		poll     = silence
		timer    = time.NewTimer(poll)
		info     client.ExecInspectResult
		err      error
	)
	defer timer.Stop()
	for {
		select {
		case <-eof:
			eof, ending, since, poll = nil, true, time.Now(), time.Millisecond
		case <-st.frame:
			p.markStarted()
			continue
		case <-watched:
			p.drain(st)
			watched, ending, since, poll = nil, true, time.Now(), time.Millisecond
		case <-timer.C:
			poll = min(poll*2, longestPoll)
			if watching && watched != nil {
				poll = 10 * longestPoll // the host tells; this is the safety net
			}
		}
		info, err = p.inspect(ctx)
		if err != nil && (!isUnavailable(err) || p.m.b.engine.isClosed() || ending && time.Since(since) > p.m.b.engine.limits.settle) {
			break
		}
		if err == nil && info.PID > 0 {
			p.setPID(info.PID)
			p.markStarted()
			if !watching && info.Running && p.m.b.engine.isLocal() {
				stop, ok := watchExit(info.PID, func() { close(exited) })
				defer stop()
				watching = ok
			}
		}
		if err == nil && !info.Running {
			p.drain(st)
			break
		}
		// Streams end a moment before the engine has seen the exit, or long
		// before it where the process closed them.
		timer.Reset(poll)
	}
	p.conn.Close()
	<-st.done
	p.finish(ctx, st, info, err)
}

// drain waits until the output of an ended process has all been handed on:
// until the stream ends, or is silent although its reader is not held up.
func (p *Process) drain(st *stream) {
	tick := time.NewTicker(linger / 4)
	defer tick.Stop()
	since := time.Now()
	for {
		select {
		case <-st.done:
			return
		case <-st.frame:
			p.markStarted()
		case <-tick.C:
			last := time.Unix(0, st.lastRead.Load())
			if last.Before(since) {
				last = since
			}
			if !st.writing.Load() && time.Since(last) > linger {
				return
			}
		}
	}
}

func (p *Process) inspect(ctx context.Context) (client.ExecInspectResult, error) {
	return call(ctx, p.m.b.engine, opInspect.of(p.m.cid), func(ctx context.Context, c *client.Client) (client.ExecInspectResult, error) {
		return c.ExecInspect(ctx, p.eid, client.ExecInspectOptions{})
	})
}

func (p *Process) setPID(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = pid
}

// finish settles how the process ended.
func (p *Process) finish(ctx context.Context, st *stream, info client.ExecInspectResult, err error) {
	p.mu.Lock()
	killed := p.killed
	p.mu.Unlock()
	var end flash.Ending
	var refusal error
	switch {
	case err != nil && isNotFound(err) && p.sandboxDying(ctx):
		end = flash.Ending{Cause: flash.CauseSandboxGone, ExitCode: -1, Message: "the sandbox ended while the command ran"}
	case err != nil:
		end = flash.Ending{Cause: flash.CauseUnknown, ExitCode: -1, Message: "the Docker engine went away while the command ran"}
	case len(st.held) > 0 && info.PID == 0 && (info.ExitCode == 126 || info.ExitCode == 127):
		refusal = execStartError(p.m.id, p.s.Args[0], p.s.User, p.s.Dir, string(st.held))
		st.held = nil
	default:
		end = processEnding(info.ExitCode)
		if !killed && info.ExitCode == 137 {
			end = p.whyKilled(ctx, end)
		}
	}
	p.write(st, stdcopy.Stdout, st.held)
	p.mu.Lock()
	p.refusal, p.ending = refusal, end
	p.mu.Unlock()
	p.markStarted()
	close(p.ended)
}

// whyKilled explains a SIGKILL that this process did not send.
func (p *Process) whyKilled(ctx context.Context, end flash.Ending) flash.Ending {
	m := p.m
	m.mu.Lock()
	group := m.group
	m.mu.Unlock()
	if group != nil {
		if n, err := group.OOMKills(); err == nil && n > p.ooms {
			return flash.Ending{Cause: flash.CauseOOM, ExitCode: 137, Message: "killed for passing the memory limit"}
		}
	}
	if p.sandboxDying(ctx) {
		return flash.Ending{Cause: flash.CauseSandboxGone, ExitCode: 137, Message: "the sandbox ended while the command ran"}
	}
	return end
}

// sandboxDying reports whether the container's own processes are going, which
// takes those of its commands along.
func (p *Process) sandboxDying(ctx context.Context) bool {
	m := p.m
	m.mu.Lock()
	destroyed, pid := m.destroyed, m.pid
	m.mu.Unlock()
	if destroyed {
		return true
	}
	if pid > 0 {
		return !processLives(pid)
	}
	// The engine sees the end of a command and of its container at about the
	// same time, in either order.
	for range 3 {
		c, err := m.inspect(ctx)
		if isGone(err) || err == nil && status(c.State) == backend.StatusEnded {
			return true
		}
		time.Sleep(30 * time.Millisecond)
	}
	return false
}

const frameHeader = 8

// read moves frames from the engine to the writers until the stream ends. A
// writer that blocks holds the process up, and nothing is buffered meanwhile.
//
// When a program can't be started the engine sends one line in place of its
// output. A first frame that looks like it is kept back until it is known
// whether a process was started.
func (p *Process) read(st *stream) {
	defer close(st.done)
	var header [frameHeader]byte
	buf := make([]byte, 32<<10)
	for first := true; ; first = false {
		if _, err := io.ReadFull(p.conn.Reader, header[:]); err != nil {
			return
		}
		st.lastRead.Store(time.Now().UnixNano())
		size := int(binary.BigEndian.Uint32(header[4:]))
		kind := stdcopy.StdType(header[0])
		if first && size <= longestRefusal && (kind == stdcopy.Stdout || kind == stdcopy.Stderr) {
			line := buf[:size]
			if _, err := io.ReadFull(p.conn.Reader, line); err != nil {
				return
			}
			if execRefusal.Match(line) {
				st.held = bytes.Clone(line)
				continue
			}
			p.tell(st)
			p.write(st, kind, line)
			continue
		}
		p.tell(st)
		p.write(st, stdcopy.Stdout, st.held)
		st.held = nil
		for size > 0 {
			n, err := p.conn.Reader.Read(buf[:min(len(buf), size)])
			st.lastRead.Store(time.Now().UnixNano())
			p.write(st, kind, buf[:n])
			size -= n
			if err != nil && size > 0 {
				return
			}
		}
	}
}

// longestRefusal is more than any line the engine sends in place of output.
const longestRefusal = 8 << 10

// tell lets run know that output has come, so the process has started.
func (p *Process) tell(st *stream) {
	select {
	case st.frame <- struct{}{}:
	default:
	}
}

// write hands output on. What a writer refuses is dropped: the process must
// not be held up by a reader that has gone.
func (p *Process) write(st *stream, kind stdcopy.StdType, b []byte) {
	w := p.s.Stdout
	if kind == stdcopy.Stderr {
		w = p.s.Stderr
	}
	if kind == stdcopy.Systemerr {
		p.m.b.log.Warn("the Docker engine broke off a command's output", "sandbox", p.m.id, "err", string(b))
		return
	}
	if w == nil || len(b) == 0 {
		return
	}
	st.writing.Store(true)
	defer st.writing.Store(false)
	_, _ = w.Write(b)
	st.lastRead.Store(time.Now().UnixNano())
}
