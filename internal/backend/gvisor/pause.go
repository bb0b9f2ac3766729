package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gvisor.dev/gvisor/runsc/boot"
)

// phase says whether a sandbox is paused. The sentry counts pauses, does not
// tell the count, and dies of a resume too many; so it is put on record before
// and after each change.
type phase string

const (
	phaseRunning  phase = "running"
	phasePausing  phase = "pausing" // paused or not, as below
	phasePaused   phase = "paused"
	phaseResuming phase = "resuming"
)

// settled reports whether the phase is certain.
func (p phase) settled() bool { return p == phaseRunning || p == phasePaused }

// phase reads the phase from the record, as another process may have changed
// it.
func (m *machine) phase() phase {
	b, err := os.ReadFile(filepath.Join(m.dir, phaseFile))
	if err != nil {
		return phaseRunning
	}
	return phase(b)
}

// setPhase puts a phase on record. The caller has seized m.
func (m *machine) setPhase(p phase) error {
	return writeFile(m.dir, phaseFile, []byte(p))
}

// pauseTimeout bounds a pause, which waits for all tasks to come to rest.
const pauseTimeout = 30 * time.Second

// Pause freezes the machine.
func (m *machine) Pause(ctx context.Context) error {
	release, err := m.seize(ctx)
	if err != nil {
		return err
	}
	defer release()
	return m.pause(ctx)
}

// Resume wakes it.
func (m *machine) Resume(ctx context.Context) error {
	release, err := m.seize(ctx)
	if err != nil {
		return err
	}
	defer release()
	return m.resume(ctx)
}

func (m *machine) pause(ctx context.Context) error {
	return m.change(ctx, phasePausing, phasePaused, boot.ContMgrPause)
}

func (m *machine) resume(ctx context.Context) error {
	return m.change(ctx, phaseResuming, phaseRunning, boot.ContMgrResume)
}

// change makes one call that changes the phase, if it is not as wanted
// already. Once begun it does not heed the caller's leaving, which would leave
// the phase uncertain.
func (m *machine) change(ctx context.Context, via, to phase, method string) error {
	if m.hasEnded() {
		return m.conflict()
	}
	if now, err := m.settle(ctx); err != nil || now == to {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.setPhase(via); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseTimeout)
	defer cancel()
	if err := m.call(ctx, method, nil, nil); err != nil {
		if m.hasEnded() {
			return m.conflict()
		}
		return fmt.Errorf("%s: %w", via, err)
	}
	return m.setPhase(to)
}

// settle finds out the phase where a crash has left it uncertain: in a paused
// kernel every task stands still at the same place.
func (m *machine) settle(ctx context.Context) (phase, error) {
	if p := m.phase(); p.settled() {
		return p, nil
	}
	ctx, cancel := context.WithTimeout(ctx, pauseTimeout)
	defer cancel()
	var stacks string
	if err := m.call(ctx, boot.DebugStacks, nil, &stacks); err != nil {
		return "", fmt.Errorf("find out whether sandbox %s is paused: %w", m.id, err)
	}
	paused, err := allStopped(stacks)
	if err != nil {
		return "", err
	}
	p := phaseRunning
	if paused {
		p = phasePaused
	}
	return p, m.setPhase(p)
}

// allStopped reads the stacks of a sentry's goroutines.
func allStopped(stacks string) (bool, error) {
	tasks, stopped := 0, 0
	for g := range strings.SplitSeq(stacks, "\n\n") {
		if !strings.Contains(g, "kernel.(*Task).run(") {
			continue
		}
		tasks++
		if strings.Contains(g, "kernel.(*Task).doStop(") {
			stopped++
		}
	}
	if tasks == 0 {
		return false, errors.New("no task in the stacks of the sentry")
	}
	return tasks == stopped, nil
}
