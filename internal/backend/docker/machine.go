package docker

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/cgroup"
)

// Machine is one container.
type Machine struct {
	b        *Backend
	id       flash.ID
	cid      string // the engine's container id
	restored string // committed image it was made from, "" if from another
	attempt  string // label of the create that made it, "" if it was found
	born     time.Time

	mu        sync.Mutex
	pid       int           // of the container's process 1 on this host; 0: not known
	group     *cgroup.Group // of that process; nil: not known
	destroyed bool          // by this process
	ending    *flash.Ending // once known
}

// handleVersion is the version of handleData.
const handleVersion = 1

type handleData struct {
	Container string `json:"container"`
	Restored  string `json:"restored,omitempty"`
}

// Handle implements backend.Machine.
func (m *Machine) Handle() backend.Handle {
	data, _ := json.Marshal(handleData{Container: m.cid, Restored: m.restored}) // two strings always marshal
	return backend.Handle{Backend: m.b.cfg.Name, Version: handleVersion, ID: m.id, Data: data}
}

// Attach implements backend.Backend.
func (b *Backend) Attach(ctx context.Context, h backend.Handle) (backend.Machine, error) {
	if h.Backend != b.cfg.Name {
		return nil, flash.Errorf(flash.Invalid, "handle: is of backend %q, not of %q", h.Backend, b.cfg.Name)
	}
	if h.Version != handleVersion {
		return nil, flash.Errorf(flash.Invalid, "handle: has format %d; this daemon knows %d", h.Version, handleVersion)
	}
	var d handleData
	if err := json.Unmarshal(h.Data, &d); err != nil || d.Container == "" {
		return nil, flash.Errorf(flash.Invalid, "handle: holds no container id")
	}
	m := &Machine{b: b, id: h.ID, cid: d.Container, restored: d.Restored}
	found, err := m.inspect(ctx)
	if err != nil {
		return nil, err
	}
	if l := found.Config.Labels; l[labelOwner] != b.cfg.Owner || l[labelID] != string(h.ID) {
		return nil, gone(h.ID)
	}
	m.learn(found)
	return m, nil
}

// List implements backend.Backend.
func (b *Backend) List(ctx context.Context) iter.Seq2[backend.Handle, error] {
	return func(yield func(backend.Handle, error) bool) {
		list, err := b.list(ctx)
		if err != nil {
			yield(backend.Handle{}, err)
			return
		}
		for _, c := range list {
			m := &Machine{b: b, id: flash.ID(c.Labels[labelID]), cid: c.ID, restored: c.Labels[labelRestored]}
			if !yield(m.Handle(), nil) {
				return
			}
		}
	}
}

// list returns all containers of ours, in any state.
func (b *Backend) list(ctx context.Context) ([]container.Summary, error) {
	res, err := call(ctx, b.engine, opList, func(ctx context.Context, c *client.Client) (client.ContainerListResult, error) {
		return c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: b.filters()})
	})
	if err != nil {
		return nil, wrap("list containers", err)
	}
	return res.Items, nil
}

func (b *Backend) filters() client.Filters {
	return client.Filters{}.Add("label", labelOwner+"="+b.cfg.Owner, labelBackend+"="+b.cfg.Name)
}

// inspect asks for the container; one that is not there is flash.NotFound.
func (m *Machine) inspect(ctx context.Context) (container.InspectResponse, error) {
	res, err := call(ctx, m.b.engine, opInspect.of(m.cid), func(ctx context.Context, c *client.Client) (client.ContainerInspectResult, error) {
		return c.ContainerInspect(ctx, m.cid, client.ContainerInspectOptions{})
	})
	switch {
	case isNotFound(err):
		return container.InspectResponse{}, gone(m.id)
	case err != nil:
		return container.InspectResponse{}, wrap("inspect container", err)
	case res.Container.State == nil || res.Container.Config == nil:
		return container.InspectResponse{}, errors.New("docker: the engine's description of the container lacks its state")
	}
	return res.Container, nil
}

// learn remembers what an inspect says of the container's processes.
func (m *Machine) learn(c container.InspectResponse) {
	if !c.State.Running || c.State.Pid <= 0 || !m.b.engine.isLocal() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pid == c.State.Pid && m.group != nil {
		return
	}
	m.pid, m.group = c.State.Pid, nil
	g, err := cgroup.OfProcess(c.State.Pid)
	if err != nil {
		return
	}
	for _, d := range g.Dirs() {
		// A runtime that was told to ignore cgroups leaves its processes in
		// another's group, whose numbers must not be shown as the sandbox's.
		if strings.Contains(d, m.cid) {
			m.group = g
			return
		}
	}
}

// processes returns the container's process 1 and its cgroup on this host, nil
// where they can't be seen.
func (m *Machine) processes(ctx context.Context) (int, *cgroup.Group) {
	m.mu.Lock()
	pid, group := m.pid, m.group
	m.mu.Unlock()
	if pid != 0 || !m.b.engine.isLocal() {
		return pid, group
	}
	if c, err := m.inspect(ctx); err == nil {
		m.learn(c)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid, m.group
}

// Status implements backend.Machine.
func (m *Machine) Status(ctx context.Context) (backend.Status, error) {
	// The engine learns of an end a moment after the process has gone.
	const lag, pause = 3 * time.Second, 10 * time.Millisecond
	for end := time.Now().Add(lag); ; {
		c, err := m.inspect(ctx)
		if err != nil {
			return "", err
		}
		st := status(c.State)
		if st == backend.StatusEnded || !m.b.engine.isLocal() || c.State.Pid <= 0 || processLives(c.State.Pid) || time.Now().After(end) {
			return st, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func status(s *container.State) backend.Status {
	switch {
	case s.Paused:
		return backend.StatusPaused
	case s.Running:
		return backend.StatusRunning
	}
	return backend.StatusEnded
}

// Destroy implements backend.Machine.
func (m *Machine) Destroy(ctx context.Context) error {
	m.mu.Lock()
	m.destroyed = true
	m.mu.Unlock()
	if err := m.remove(ctx); err != nil {
		return err
	}
	if m.restored != "" {
		m.b.dropUntagged(ctx, m.restored)
	}
	return nil
}

// remove kills and removes the container, and returns once it is gone.
func (m *Machine) remove(ctx context.Context) error {
	const tries = 50
	for i := 0; ; i++ {
		err := do(ctx, m.b.engine, opRemove.of(m.cid), func(ctx context.Context, c *client.Client) error {
			_, err := c.ContainerRemove(ctx, m.cid, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			return err
		})
		if err == nil || isNotFound(err) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// Another removal is under way (409), or the engine stumbled over a
		// process or mount that has just gone: it says so as an internal error.
		if isUnavailable(err) || i == tries || !isConflict(err) && i > 3 {
			return wrap("remove container", err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func isUnavailable(err error) bool { return errors.Is(err, flash.Unavailable) }

// Pause implements backend.Pauser.
func (m *Machine) Pause(ctx context.Context) error {
	err := do(ctx, m.b.engine, opPause, func(ctx context.Context, c *client.Client) error {
		_, err := c.ContainerPause(ctx, m.cid, client.ContainerPauseOptions{})
		return err
	})
	if alreadyPaused(err) {
		return nil
	}
	return m.stateError("pause container", err)
}

// Resume implements backend.Pauser.
func (m *Machine) Resume(ctx context.Context) error {
	err := do(ctx, m.b.engine, opPause, func(ctx context.Context, c *client.Client) error {
		_, err := c.ContainerUnpause(ctx, m.cid, client.ContainerUnpauseOptions{})
		return err
	})
	if notPaused(err) {
		c, err := m.inspect(ctx)
		if err != nil {
			return err
		}
		if status(c.State) == backend.StatusEnded {
			return endedError(m.id)
		}
		return nil
	}
	return m.stateError("resume container", err)
}

// stateError explains a refusal by the container's state.
func (m *Machine) stateError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case isNotFound(err):
		return gone(m.id)
	case notRunning(err):
		return endedError(m.id)
	}
	return wrap(doing, err)
}
