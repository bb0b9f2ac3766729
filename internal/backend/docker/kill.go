package docker

import (
	"bytes"
	"context"
	"fmt"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/cgroup"
)

// Kill implements backend.Process. The engine's API has no call for it. On a
// local engine the process, its session and its descendants are killed from
// the host; else by a helper inside the sandbox, which finds them by a mark in
// their environment.
func (p *Process) Kill(ctx context.Context) error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	p.mu.Lock()
	p.killed = true
	pid := p.pid
	p.mu.Unlock()
	_, group := p.m.processes(ctx)
	if p.mark != "" || group == nil {
		return p.killInside(ctx)
	}
	for tries := 0; pid == 0; tries++ {
		// Output may come before the engine itself knows the process, and a
		// process that is being started is not running yet.
		info, err := p.inspect(ctx)
		switch {
		case isNotFound(err):
			return nil
		case err != nil:
			return err
		case !info.Running && (info.PID > 0 || info.ExitCode != 0 || tries == 500):
			return nil
		}
		if pid = info.PID; pid > 0 {
			break
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-p.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return killTree(group, pid, p.m.cid)
}

// killTree kills root, its session and its descendants, again until none is
// left, since they may fork meanwhile.
func killTree(group *cgroup.Group, root int, cid string) error {
	const rounds = 20
	dead := map[int]bool{}
	for range rounds {
		pids, err := group.Procs()
		if err != nil {
			return fmt.Errorf("docker: list processes: %w", err)
		}
		targets := tree(root, pids)
		fresh := false
		for _, pid := range targets {
			if err := killProcess(pid, cid); err != nil {
				return fmt.Errorf("docker: %w", err)
			}
			fresh = fresh || !dead[pid]
			dead[pid] = true
		}
		if !fresh {
			return nil
		}
	}
	return flash.Errorf(flash.Internal, "the command forks faster than it can be killed")
}

// tree returns those of pids that are root, in its session, or below either.
func tree(root int, pids []int) []int {
	place := map[int]hostProcess{}
	for _, pid := range pids {
		if h, ok := readProcess(pid); ok {
			place[pid] = h
		}
	}
	in := map[int]bool{}
	for grown := true; grown; {
		grown = false
		for pid, h := range place {
			if !in[pid] && (pid == root || h.session == root || in[h.parent]) {
				in[pid], grown = true, true
			}
		}
	}
	out := make([]int, 0, len(in))
	if in[root] {
		out = append(out, root)
	}
	for pid := range in {
		if pid != root {
			out = append(out, pid)
		}
	}
	return out
}

// killScript kills what has the mark $1 in its environment, having stopped all
// of it first, so that none sees another die and goes on. Only sh and grep are
// needed; kill is part of the shell.
const killScript = `
for i in 1 2 3; do
	for sig in STOP KILL; do
		for d in /proc/[0-9]*; do
			if grep -q "` + markVar + `=$1" "$d/environ" 2>/dev/null; then kill -$sig "${d#/proc/}" 2>/dev/null; fi
		done
	done
done
exit 0`

func (p *Process) killInside(ctx context.Context) error {
	if p.mark == "" {
		return flash.Errorf(flash.Unavailable, "the processes of sandbox %s can't be seen now; the command runs on", p.m.id)
	}
	var stderr bytes.Buffer
	helper := &Process{
		m: p.m, s: backend.ExecSpec{Args: []string{"sh", "-c", killScript, "kill", p.mark}, User: "0", Stderr: &stderr},
		started: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := helper.launch(ctx, nil); err != nil {
		return fmt.Errorf("docker: a command can't be killed without sh and grep in the sandbox: %w", err)
	}
	end, err := helper.Wait(ctx)
	if err != nil {
		return err
	}
	if end.ExitCode != 0 {
		return fmt.Errorf("docker: the helper that kills commands failed: %s: %s", end.Message, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}
