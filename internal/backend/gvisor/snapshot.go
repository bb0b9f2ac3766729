package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/pkg/sentry/state/checkpointfiles"
	"gvisor.dev/gvisor/pkg/state/statefile"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
)

// snapshotTimeout bounds the writing of a snapshot.
const snapshotTimeout = 15 * time.Minute

// savedData is Saved.Data.
type savedData struct {
	Version string // of gVisor, which restores only what it saved itself
	Machine record // of the machine that was saved
}

// Snapshot saves memory, processes and written files into dir and leaves the
// machine paused.
func (m *machine) Snapshot(ctx context.Context, dir string) (_ backend.Saved, err error) {
	release, err := m.seize(ctx)
	if err != nil {
		return backend.Saved{}, err
	}
	defer release()
	if m.hasEnded() {
		return backend.Saved{}, m.conflict()
	}
	before, err := m.settle(ctx)
	if err != nil {
		return backend.Saved{}, err
	}
	if err := m.room(dir); err != nil {
		return backend.Saved{}, err
	}
	if err := m.pause(ctx); err != nil {
		return backend.Saved{}, err
	}
	defer func() {
		if err != nil && strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
			err = full(err)
		}
	}()
	defer func() {
		if err != nil && before == phaseRunning && !m.hasEnded() {
			err = errors.Join(err, m.resume(context.WithoutCancel(ctx)))
		}
	}()
	if err := m.checkpoint(ctx, dir); err != nil {
		return backend.Saved{}, err
	}
	data, err := json.Marshal(savedData{Version: version(), Machine: m.rec})
	if err != nil {
		return backend.Saved{}, err
	}
	return backend.Saved{
		StateFile: checkpointfiles.StateFileName,
		MemFile:   checkpointfiles.PagesFileName,
		Memory:    true,
		Detail: "Memory, processes and written files are saved; " +
			"a restored sandbox goes on with the main command and its children, while processes started by exec end.",
		Data: data,
	}, nil
}

// leastRoom is what a state takes besides the sandbox's memory, with room for
// what changes meanwhile.
const leastRoom = 32 << 20

// room refuses a snapshot for which the disk is visibly too small. A sentry
// that runs out of space while it saves may not survive it.
func (m *machine) room(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	need := uint64(leastRoom)
	if g, err := m.cgroup(); err == nil {
		if s, err := g.Stats(); err == nil {
			need += s.MemoryUsageBytes
		}
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < need {
		return full(fmt.Errorf("%d bytes are free, about %d needed", free, need))
	}
	return nil
}

func full(err error) error {
	return flash.Errorf(flash.Exhausted, "the disk of the data folder is too full for a snapshot").
		WithRemediation("free some space, for example by deleting snapshots").WithCause(err)
}

// checkpoint has the sentry write its state. It pauses once more for that and
// resumes once, so that a paused sandbox stays paused.
func (m *machine) checkpoint(ctx context.Context, dir string) (err error) {
	// The sentry can't be stopped once it has begun.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotTimeout)
	defer cancel()
	var files []*os.File
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	// In the order in which the sentry expects them.
	for _, name := range []string{checkpointfiles.StateFileName, checkpointfiles.PagesMetadataFileName, checkpointfiles.PagesFileName} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	opts := &control.SaveOpts{
		Metadata:      statefile.CompressionLevelNone.ToMetadata(),
		HavePagesFile: true,
		Resume:        true,
		FilePayload:   urpc.FilePayload{Files: files},
	}
	if err := m.call(ctx, boot.ContMgrCheckpoint, opts, nil, files...); err != nil {
		if m.hasEnded() {
			return m.conflict()
		}
		return fmt.Errorf("save sandbox %s: %w", m.id, err)
	}
	return nil
}

// Restore makes a machine from a saved state. The limits, the id and the host
// name are the spec's.
func (b *Backend) Restore(ctx context.Context, s backend.Spec, dir string, v backend.Saved) (backend.Machine, error) {
	var d savedData
	if err := json.Unmarshal(v.Data, &d); err != nil {
		return nil, flash.Errorf(flash.Invalid, "snapshot: its description can't be read").WithCause(err)
	}
	if d.Version != version() {
		return nil, flash.Errorf(flash.Conflict, "snapshot: it was made by gVisor %s, which this gVisor (%s) can't restore", d.Version, version())
	}
	for _, name := range []string{v.StateFile, v.MemFile} {
		if fi, err := os.Stat(filepath.Join(dir, filepath.Base(name))); err != nil || fi.Size() == 0 {
			return nil, flash.Errorf(flash.Invalid, "snapshot: its file %s is missing or empty", name).WithCause(err)
		}
	}
	s.Args, s.Env, s.Dir, s.User = d.Machine.Args, d.Machine.Env, d.Machine.Dir, ""
	m, err := b.build(ctx, s, dir, &d.Machine)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Discard removes what Snapshot keeps outside its directory: nothing.
func (b *Backend) Discard(context.Context, string, backend.Saved) error { return nil }
