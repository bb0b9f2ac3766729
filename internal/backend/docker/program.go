package docker

import (
	"context"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Under docker-init the engine's start succeeds whether or not the program
// exists: docker-init forks, and the child's exec fails a moment later with
// exit code 127 or 126, which a program of the user's may give as well. This
// file tells the two apart.

// programDeadline is how long a start may take to get from docker-init to the program.
const programDeadline = 5 * time.Second

// awaitProgram returns once docker-init's child runs the program, or explains
// why it does not. It watches the processes, so it needs a local engine.
func (b *Backend) awaitProgram(ctx context.Context, m *Machine, s *backend.Spec) error {
	found, err := m.inspect(ctx)
	if err != nil {
		return err
	}
	m.learn(found)
	pid := found.State.Pid
	wait := 100 * time.Microsecond
	for end := time.Now().Add(programDeadline); pid > 0 && time.Now().Before(end); time.Sleep(wait) {
		started, known := childExecuted(pid)
		if started {
			return nil
		}
		if !known {
			break
		}
		wait = min(wait*3/2, 10*time.Millisecond)
	}
	// docker-init has ended, or /proc does not tell.
	for end := time.Now().Add(programDeadline); ; time.Sleep(2 * time.Millisecond) {
		if found, err = m.inspect(ctx); err != nil {
			return err
		}
		if found.State.Running && processLives(found.State.Pid) {
			return nil // can't be told, so far it lives
		}
		if !found.State.Running || time.Now().After(end) {
			break
		}
	}
	if c := found.State.ExitCode; c != 127 && c != 126 {
		return nil
	}
	return b.findProgram(ctx, m.cid, s)
}

// childExecuted reports whether the child of docker-init runs another program
// than docker-init, and whether that can still be told.
func childExecuted(pid int) (started, known bool) {
	proc := "/proc/" + strconv.Itoa(pid)
	initExe, err := os.Readlink(proc + "/exe")
	if err != nil {
		return false, false
	}
	children, err := os.ReadFile(proc + "/task/" + strconv.Itoa(pid) + "/children")
	if err != nil {
		return false, false
	}
	for child := range strings.FieldsSeq(string(children)) {
		exe, err := os.Readlink("/proc/" + child + "/exe")
		if err == nil && exe != initExe {
			return true, true
		}
	}
	return false, true
}

// findProgram looks the program up in the container's file system, as execvp
// would. It returns nil if it is there and may be executed.
func (b *Backend) findProgram(ctx context.Context, cid string, s *backend.Spec) error {
	name := s.Args[0]
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, dir := range strings.Split(pathOf(s.Env), ":") {
			candidates = append(candidates, path.Join("/", dir, name))
		}
	} else if !path.IsAbs(name) {
		candidates = []string{path.Join("/", s.Dir, name)}
	}
	var refused *flash.Error
	for _, p := range candidates {
		mode, err := b.mode(ctx, cid, p)
		switch {
		case isNotFound(err):
		case err != nil:
			return err
		case mode.IsDir() || mode.Perm()&0o111 == 0:
			refused = notExecutable(name)
		default:
			return nil
		}
	}
	if refused != nil {
		return refused
	}
	return notInImage(name)
}

// mode returns the mode of a file in a container, links followed.
func (b *Backend) mode(ctx context.Context, cid, p string) (os.FileMode, error) {
	const mostLinks = 10
	for i := 0; ; i++ {
		st, err := call(ctx, b.engine, opInspect, func(ctx context.Context, c *client.Client) (client.ContainerStatPathResult, error) {
			return c.ContainerStatPath(ctx, cid, client.ContainerStatPathOptions{Path: p})
		})
		if err != nil {
			return 0, err
		}
		if st.Stat.Mode&os.ModeSymlink == 0 || st.Stat.LinkTarget == "" || i == mostLinks {
			return st.Stat.Mode, nil
		}
		if p = st.Stat.LinkTarget; !path.IsAbs(p) {
			return st.Stat.Mode.Perm(), nil
		}
	}
}

// defaultPath is what the engine sets when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func pathOf(env []string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			return v
		}
	}
	return defaultPath
}
