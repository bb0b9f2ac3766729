package gvisor

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"golang.org/x/sys/unix"
)

// streams are the host's ends of a process's standard streams.
type streams struct {
	theirs [3]*os.File   // the process's ends
	in     *os.File      // write end of stdin; nil if there is none
	out    [2]*os.File   // read ends of stdout and stderr; nil if not wanted
	copied chan struct{} // gets a value per finished output
}

// openStreams makes pipes for the streams that are wanted.
func openStreams(s backend.ExecSpec) (st *streams, err error) {
	st = &streams{copied: make(chan struct{}, 2)}
	defer func() {
		if err != nil {
			st.closeTheirs()
			st.abandon()
		}
	}()
	if s.Stdin != nil {
		if st.theirs[0], st.in, err = pipe(false); err != nil {
			return nil, err
		}
	} else if st.theirs[0], err = os.Open(os.DevNull); err != nil {
		return nil, err
	}
	for i, w := range []io.Writer{s.Stdout, s.Stderr} {
		if w == nil {
			st.theirs[1+i], err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		} else {
			st.out[i], st.theirs[1+i], err = pipe(true)
		}
		if err != nil {
			return nil, err
		}
	}
	return st, nil
}

// pipe makes a pipe whose one end, the read end if keepRead, stays here and is
// waited for by Go's poller.
func pipe(keepRead bool) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	ours := fds[1]
	if keepRead {
		ours = fds[0]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

func (st *streams) closeTheirs() {
	for _, f := range st.theirs {
		if f != nil {
			_ = f.Close()
		}
	}
}

// abandon closes this side's ends, of a process that never started or whose
// output nobody wants.
func (st *streams) abandon() {
	for _, f := range []*os.File{st.in, st.out[0], st.out[1]} {
		if f != nil {
			_ = f.Close()
		}
	}
	st.in, st.out = nil, [2]*os.File{}
}

// run begins to copy.
func (st *streams) run(s backend.ExecSpec) {
	if st.in != nil {
		go func() {
			_, _ = io.Copy(st.in, s.Stdin) // ends with the process, at the latest with its next byte
			_ = st.in.Close()
		}()
	}
	for i, w := range []io.Writer{s.Stdout, s.Stderr} {
		if st.out[i] == nil {
			continue
		}
		go func() {
			copyOutput(w, st.out[i], func() { st.copied <- struct{}{} })
		}()
	}
}

// finish returns once all that the process wrote has been copied. The process
// has ended; children of it may still hold the streams.
func (st *streams) finish() {
	if st.in != nil {
		_ = st.in.Close()
	}
	for _, f := range st.out {
		if f != nil {
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
	}
	for _, f := range st.out {
		if f != nil {
			<-st.copied
		}
	}
}

// copyOutput copies r to w until the end, or until r's deadline is set: then
// it copies what is in the pipe at that time and calls it done. A child that
// still holds the pipe is read on, unheard, for as long as it does: closing
// the pipe would kill it with its next write.
func copyOutput(w io.Writer, r *os.File, done func()) {
	defer r.Close()
	buf := make([]byte, 32<<10)
	emit := func(b []byte) {
		if w == nil {
			return
		}
		if _, err := w.Write(b); err != nil {
			w = nil // its reader has gone; the process is not to block on it
		}
	}
	for {
		n, err := r.Read(buf)
		if n > 0 {
			emit(buf[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			done()
			return
		}
	}
	_ = r.SetReadDeadline(time.Time{})
	left := pending(r)
	for left > 0 {
		n, err := r.Read(buf[:min(left, len(buf))])
		if n > 0 {
			emit(buf[:n])
			left -= n
		}
		if err != nil {
			done()
			return
		}
	}
	done()
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
}

// pending returns how many bytes are in a pipe.
func pending(r *os.File) (n int) {
	rc, err := r.SyscallConn()
	if err != nil {
		return 0
	}
	_ = rc.Control(func(fd uintptr) {
		n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err != nil {
			n = 0
		}
	})
	return n
}
