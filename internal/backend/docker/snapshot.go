package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// snapshotRepository holds committed images. A tag keeps them from being pruned.
const snapshotRepository = "flash-sandbox/snapshot"

// snapshotFile stands for a snapshot in its folder; the content is in the engine.
const snapshotFile = "snapshot.json"

const snapshotDetail = "The file system is in it, without volumes and tmpfs; memory and processes are not."

// savedData is backend.Saved.Data.
type savedData struct {
	Image string `json:"image"` // id
	Tag   string `json:"tag"`
}

// snapshotTag names the committed image of a snapshot folder. It follows from
// the folder, so that a crash in the middle leaves nothing that can't be found.
func (b *Backend) snapshotTag(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	sum := sha256.Sum256([]byte(b.cfg.Owner + "\x00" + b.cfg.Name + "\x00" + dir))
	return snapshotRepository + ":" + hex.EncodeToString(sum[:12])
}

// Snapshot implements backend.Snapshotter.
func (m *Machine) Snapshot(ctx context.Context, dir string) (_ backend.Saved, err error) {
	found, err := m.inspect(ctx)
	if err != nil {
		return backend.Saved{}, err
	}
	before := status(found.State)
	if before == backend.StatusEnded {
		return backend.Saved{}, endedError(m.id)
	}
	if err := m.commitSees(ctx, before); err != nil {
		return backend.Saved{}, err
	}
	if err := m.Pause(ctx); err != nil {
		return backend.Saved{}, err
	}
	tag := m.b.snapshotTag(dir)
	defer func() {
		if err == nil {
			return
		}
		clean, cancel := detached(ctx, opRemove.timeout+opPause.timeout)
		defer cancel()
		there, derr := m.b.dropImage(clean, tag)
		if derr != nil || !there && isUnavailable(err) {
			m.b.doomedImages.add(tag, tag) // the engine may yet make it
		}
		if derr != nil {
			m.b.log.Warn("a failed snapshot's image could not be removed", "sandbox", m.id, "image", tag, "err", derr)
		}
		if before == backend.StatusRunning {
			if rerr := m.Resume(clean); rerr != nil {
				m.b.log.Warn("a sandbox could not be resumed after a failed snapshot", "sandbox", m.id, "err", rerr)
			}
		}
	}()
	changes := []string{
		"LABEL " + labelSnapshot + "=true",
		"LABEL " + labelOwner + "=" + quote(m.b.cfg.Owner),
		"LABEL " + labelID + "=" + quote(string(m.id)),
	}
	m.b.doomedImages.drop(tag)
	// Not cut short: the engine would go on, and tag an image that nobody has.
	made, err := call(context.WithoutCancel(ctx), m.b.engine, opCommit, func(ctx context.Context, c *client.Client) (client.ContainerCommitResult, error) {
		return c.ContainerCommit(ctx, m.cid, client.ContainerCommitOptions{Reference: tag, Changes: changes, NoPause: true})
	})
	if err != nil {
		if strings.Contains(err.Error(), "no space left") {
			return backend.Saved{}, flash.Errorf(flash.Exhausted, "the Docker engine's disk is full").WithCause(err)
		}
		return backend.Saved{}, m.stateError("commit container", err)
	}
	if ctx.Err() != nil {
		return backend.Saved{}, ctx.Err()
	}
	data, err := json.Marshal(savedData{Image: made.ID, Tag: tag})
	if err != nil {
		return backend.Saved{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, snapshotFile), append(data, '\n'), 0o600); err != nil {
		return backend.Saved{}, err
	}
	return backend.Saved{StateFile: snapshotFile, Detail: snapshotDetail, Data: data}, nil
}

// syncFile is made and removed again to see whether a commit would have it.
const syncFile = "/.flash-sandbox-sync"

// commitSees refuses a snapshot that would silently be empty: gVisor by default
// keeps what sandboxes write in an overlay of its own, which the engine can't
// see. It looks once, and leaves the machine as it was, before.
func (m *Machine) commitSees(ctx context.Context, before backend.Status) (err error) {
	if !m.b.gVisor() {
		return nil
	}
	m.b.mu.Lock()
	known := m.b.commits
	m.b.mu.Unlock()
	if known == nil {
		if before == backend.StatusPaused {
			if err := m.Resume(ctx); err != nil {
				return err
			}
			defer func() {
				clean, cancel := detached(ctx, opPause.timeout)
				defer cancel()
				err = errors.Join(err, m.Pause(clean))
			}()
		}
		if err := m.run(ctx, "sh", "-c", ": > "+syncFile); err != nil {
			return flash.Errorf(flash.Unsupported, "snapshot: whether the runtime %s allows it can't be found out without a shell in the image", m.b.cfg.Runtime).WithCause(err)
		}
		_, err := m.b.mode(ctx, m.cid, syncFile)
		if err != nil && !isNotFound(err) {
			return err
		}
		if err := m.run(ctx, "rm", "-f", syncFile); err != nil {
			return err
		}
		sees := err == nil
		known = &sees
		m.b.mu.Lock()
		m.b.commits = known
		m.b.mu.Unlock()
	}
	if !*known {
		return flash.Errorf(flash.Unsupported, "snapshot: the runtime %s keeps what sandboxes write in an overlay of its own, which the Docker engine can't see", m.b.cfg.Runtime).
			WithRemediation("register the runtime with the flag --overlay2=none")
	}
	return nil
}

// run runs a command as root to a good end.
func (m *Machine) run(ctx context.Context, args ...string) error {
	p, err := m.Exec(ctx, backend.ExecSpec{Args: args, User: "0", Dir: "/"})
	if err != nil {
		return err
	}
	end, err := p.Wait(ctx)
	if err == nil && end.ExitCode != 0 {
		err = fmt.Errorf("%s %s", args[0], end.Message)
	}
	return err
}

// quote makes a value safe in a LABEL line.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return strings.ReplaceAll(string(b), "$", `\$`)
}

// Restore implements backend.Restorer.
func (b *Backend) Restore(ctx context.Context, s backend.Spec, _ string, v backend.Saved) (backend.Machine, error) {
	if err := b.check(&s); err != nil {
		return nil, err
	}
	var d savedData
	if err := json.Unmarshal(v.Data, &d); err != nil || d.Image == "" {
		return nil, flash.Errorf(flash.Invalid, "snapshot: holds no image of the Docker engine")
	}
	m, err := b.create(ctx, &s, d.Image, d.Image)
	if isNotFound(err) && ctx.Err() == nil {
		lost := flash.Errorf(flash.Conflict, "snapshot: its image %.19s is no longer in the Docker engine", d.Image).
			WithRemediation("delete the snapshot; what it held can't be had back").WithCause(err)
		lost.Reason = "snapshot_lost"
		return nil, lost
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Discard implements backend.Restorer.
func (b *Backend) Discard(ctx context.Context, dir string, v backend.Saved) error {
	d := savedData{Tag: b.snapshotTag(dir)}
	if len(v.Data) > 0 {
		if err := json.Unmarshal(v.Data, &d); err != nil {
			return flash.Errorf(flash.Invalid, "snapshot: its data can't be read").WithCause(err)
		}
	}
	_, err := b.dropImage(ctx, d.Tag)
	return err
}

// dropImage takes a tag off, and with it the image unless a container uses
// it; Destroy removes it with the last of those. It says whether the tag was
// there.
func (b *Backend) dropImage(ctx context.Context, tag string) (there bool, err error) {
	res, err := b.inspectImage(ctx, tag)
	if isNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = b.removeImage(ctx, tag, true)
	switch {
	case err == nil, isNotFound(err):
		return true, nil
	case isConflict(err): // in use: the tag has gone, or stays with its last user
		return true, nil
	}
	return true, wrap("remove image "+res.ID, err)
}

// dropUntagged removes a committed image that has lost its tag, unless another
// container still uses it.
func (b *Backend) dropUntagged(ctx context.Context, id string) {
	res, err := b.inspectImage(ctx, id)
	if err != nil || len(res.RepoTags) > 0 {
		return
	}
	if err := b.removeImage(ctx, id, false); err != nil && !isConflict(err) && !isNotFound(err) {
		b.log.Warn("a discarded snapshot's image could not be removed", "image", id, "err", err)
	}
}

func (b *Backend) removeImage(ctx context.Context, ref string, force bool) error {
	return do(ctx, b.engine, opRemove, func(ctx context.Context, c *client.Client) error {
		_, err := c.ImageRemove(ctx, ref, client.ImageRemoveOptions{Force: force, PruneChildren: true})
		return err
	})
}
