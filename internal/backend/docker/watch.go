package docker

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// hub tells waiters when their containers end. One subscription to the
// engine's events serves all of them, however many there are; a listing now
// and then finds what events have missed, and an engine that restarted.
// It runs only while somebody waits.
type hub struct {
	b *Backend

	mu     sync.Mutex
	watch  map[string]*watch // by container id
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
	closed bool
}

// watch is a container somebody waits for.
type watch struct {
	m       *Machine
	waiters int
	ended   chan struct{}
	ending  flash.Ending
}

const (
	listEvery = 20 * time.Second // how often the truth is listed while events come
	listDown  = 2 * time.Second  // how often while the engine is away
)

func newHub(b *Backend) *hub { return &hub{b: b, watch: map[string]*watch{}} }

// Wait implements backend.Machine.
func (m *Machine) Wait(ctx context.Context) (flash.Ending, error) {
	if ctx.Err() != nil {
		return flash.Ending{}, ctx.Err()
	}
	m.mu.Lock()
	known := m.ending
	m.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	w := m.b.hub.join(m)
	if w == nil { // the backend is closed
		<-ctx.Done()
		return flash.Ending{}, ctx.Err()
	}
	defer m.b.hub.leave(w)
	// The subscription may be older than the end.
	go m.b.hub.look(ctx, w)
	select {
	case <-w.ended:
		end := w.ending
		m.mu.Lock()
		if m.destroyed && (end.Cause == flash.CauseSignal || end.Cause == flash.CauseBackendLost || end.Cause == flash.CauseUnknown) {
			end = flash.Ending{Cause: flash.CauseCancelled, ExitCode: 137, Message: "the sandbox was removed"}
		}
		m.ending = &end
		m.mu.Unlock()
		return end, nil
	case <-ctx.Done():
		return flash.Ending{}, ctx.Err()
	}
}

// join registers a waiter and starts the hub for the first one.
func (h *hub) join(m *Machine) *watch {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	w := h.watch[m.cid]
	if w == nil {
		w = &watch{m: m, ended: make(chan struct{})}
		h.watch[m.cid] = w
	}
	w.waiters++
	if h.cancel == nil {
		ctx, cancel := context.WithCancel(context.Background())
		h.cancel, h.done = cancel, make(chan struct{})
		go h.run(ctx, h.done)
	}
	return w
}

// leave ends a wait, and the hub with the last one.
func (h *hub) leave(w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w.waiters--
	if w.waiters == 0 && h.watch[w.m.cid] == w {
		delete(h.watch, w.m.cid)
	}
	if len(h.watch) == 0 && h.cancel != nil {
		h.cancel()
		h.cancel = nil
	}
}

func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	done := h.done
	if h.cancel != nil {
		h.cancel()
		h.cancel = nil
	}
	h.mu.Unlock()
	if done != nil {
		<-done
	}
}

// get returns the watch of a container, nil if nobody waits for it.
func (h *hub) get(cid string) *watch {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watch[cid]
}

// settle ends a watch.
func (h *hub) settle(w *watch, end flash.Ending) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-w.ended:
	default:
		w.ending = end
		close(w.ended)
	}
	if h.watch[w.m.cid] == w {
		delete(h.watch, w.m.cid)
	}
	if len(h.watch) == 0 && h.cancel != nil {
		h.cancel()
		h.cancel = nil
	}
}

// run subscribes to events, again and again, and lists in between.
func (h *hub) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	for ctx.Err() == nil {
		if h.follow(ctx) {
			continue
		}
		select {
		case <-time.After(listDown):
		case <-ctx.Done():
		}
	}
}

// follow handles events until the subscription breaks. It returns false when
// there was none.
func (h *hub) follow(ctx context.Context) bool {
	c, err := h.b.engine.client(ctx)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type subscription struct{ client.EventsResult }
	subscribed := make(chan subscription, 1)
	go func() {
		f := h.b.filters().Add("type", string(events.ContainerEventType)).
			Add("event", string(events.ActionDie), string(events.ActionDestroy))
		subscribed <- subscription{c.Events(ctx, client.EventsListOptions{Filters: f})}
	}()
	var sub subscription
	select {
	case sub = <-subscribed:
	case <-time.After(h.b.engine.limits.ping):
		return false
	case <-ctx.Done():
		return false
	}
	// What ended before the subscription shows in a listing after it.
	if h.reconcile(ctx) != nil {
		return false
	}
	tick := time.NewTicker(listEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-sub.Messages:
			if w := h.get(e.Actor.ID); w != nil {
				go h.event(ctx, w, e)
			}
		case err := <-sub.Err:
			h.b.log.Debug("the Docker engine's events have ended", "err", err)
			return true
		case <-tick.C:
			if h.reconcile(ctx) != nil {
				return false
			}
		case <-ctx.Done():
			return true
		}
	}
}

// event handles the end of a container that is waited for.
func (h *hub) event(ctx context.Context, w *watch, e events.Message) {
	found, err := w.m.inspect(ctx)
	switch {
	case err == nil && status(found.State) == backend.StatusEnded:
		h.settle(w, w.m.endingOf(found.State))
	case err == nil:
		// Running: the event was of an earlier life.
	case isGone(err):
		// Removed in the same moment: the event holds the exit code.
		code, err := strconv.Atoi(e.Actor.Attributes["exitCode"])
		if err != nil {
			h.settle(w, lost())
			return
		}
		h.settle(w, w.m.endingOf(&container.State{ExitCode: code}))
	}
}

// look asks for one container's state.
func (h *hub) look(ctx context.Context, w *watch) {
	found, err := w.m.inspect(ctx)
	switch {
	case err == nil && status(found.State) == backend.StatusEnded:
		h.settle(w, w.m.endingOf(found.State))
	case isGone(err):
		h.settle(w, lost())
	case err == nil:
		w.m.learn(found)
	}
}

// reconcile lists all containers and settles those that have ended.
func (h *hub) reconcile(ctx context.Context) error {
	// Taken first: what joins later is looked at by its own Wait.
	h.mu.Lock()
	watched := make(map[string]*watch, len(h.watch))
	for cid, w := range h.watch {
		watched[cid] = w
	}
	h.mu.Unlock()
	list, err := h.b.list(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			delete(watched, c.ID)
		}
	}
	for _, w := range watched {
		h.look(ctx, w)
	}
	return nil
}

func isGone(err error) bool { return err != nil && flash.AsError(err).Code == flash.NotFound }

func lost() flash.Ending {
	return flash.Ending{Cause: flash.CauseBackendLost, ExitCode: -1, Message: "the Docker engine no longer has the container: somebody else removed it"}
}

// endingOf tells how a container that no longer runs has ended.
func (m *Machine) endingOf(s *container.State) flash.Ending {
	code := s.ExitCode
	switch {
	case s.OOMKilled && code != 0:
		return flash.Ending{Cause: flash.CauseOOM, ExitCode: code, Message: "killed for passing the memory limit"}
	case s.Status == container.StateCreated:
		return flash.Ending{Cause: flash.CauseStartFailed, ExitCode: -1, Message: "the container was never started"}
	case s.Status == container.StateDead && code == 0:
		return flash.Ending{Cause: flash.CauseUnknown, ExitCode: -1, Message: "the Docker engine could not remove the container in full"}
	case code == 255 && s.Error != "":
		return flash.Ending{Cause: flash.CauseUnknown, ExitCode: -1, Message: "the Docker engine lost sight of the container"}
	}
	return processEnding(code)
}

// lastSignal is the highest signal that exit codes above 128 are read as.
const lastSignal = 64

// processEnding reads an exit code as the engine reports it: 128+n for signal n.
func processEnding(code int) flash.Ending {
	if n := code - 128; n > 0 && n <= lastSignal {
		return flash.Ending{Cause: flash.CauseSignal, ExitCode: code, Message: "ended by signal " + strconv.Itoa(n)}
	}
	return flash.Ending{Cause: flash.CauseExited, ExitCode: code, Message: "exited with code " + strconv.Itoa(code)}
}
