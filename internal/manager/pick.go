package manager

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Probing again costs something, and an engine that is down is often asked
// for in bursts.
const (
	probeTimeout     = 20 * time.Second // a first probe may start something on a busy host
	probeAgainFailed = 2 * time.Second
	probeAgainOK     = 30 * time.Second
)

// managedBackend is a backend with what its last probe said.
type managedBackend struct {
	backend.Backend
	name string
	log  *slog.Logger

	mu      sync.Mutex
	probed  time.Time
	err     error         // of the last probe
	probing chan struct{} // closed when the probe under way ends
	// reconciled is set once its machines have been compared with the records.
	reconciled bool
}

// Unwrap lets backend.As see through to the backend.
func (b *managedBackend) Unwrap() any { return b.Backend }

// check returns nil if the backend can be used, by its last probe if that is
// recent enough, else by a new one that all callers share.
func (b *managedBackend) check(ctx context.Context) error {
	b.mu.Lock()
	age := time.Since(b.probed)
	if !b.probed.IsZero() && (b.err == nil && age < probeAgainOK || b.err != nil && age < probeAgainFailed) {
		defer b.mu.Unlock()
		return b.err
	}
	if b.probing == nil {
		done := make(chan struct{})
		b.probing = done
		go b.probe(done)
	}
	wait, last, ever := b.probing, b.err, !b.probed.IsZero()
	b.mu.Unlock()
	if ever && last == nil {
		return nil // was fine, is being asked again: don't make the caller wait
	}
	select {
	case <-wait:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *managedBackend) probe(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	err := b.Probe(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err != nil && (b.err == nil || b.err.Error() != err.Error()):
		b.log.Warn("backend is not available", "backend", b.name, "err", err)
	case err == nil && (b.err != nil || b.probed.IsZero()):
		b.log.Info("backend is available", "backend", b.name, "version", b.Info().Version, "capabilities", backend.Capabilities(b.Backend))
	}
	b.err, b.probed, b.probing = err, time.Now(), nil
	close(done)
}

// reason is why the backend isn't available, in a sentence, or "".
func (b *managedBackend) reason() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		return ""
	}
	return flash.AsError(b.err).Message
}

// later are backends by name that published clients know and this daemon
// does not have.
var later = []string{"firecracker", "libkrun", "kubernetes", "containerd"}

// pick chooses the backend for a type as the user wrote it.
func (m *Manager) pick(ctx context.Context, typ string) (*managedBackend, error) {
	switch strings.ToLower(typ) {
	case "", "auto", "any":
		var reasons []string
		for _, b := range m.backends {
			err := b.check(ctx)
			if err == nil {
				return b, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			reasons = append(reasons, b.name+": "+flash.AsError(err).Message)
		}
		return nil, flash.Errorf(flash.Unavailable, "no backend is available: %s", strings.Join(reasons, "; "))
	}
	b := m.backendNamed(strings.ToLower(typ))
	if b == nil {
		names := strings.Join(m.backendNames(), ", ")
		base, _, _ := strings.Cut(strings.ToLower(typ), "/")
		if slices.Contains(later, base) || base == "docker" && m.backendNamed("docker") == nil || strings.HasPrefix(strings.ToLower(typ), "docker/") {
			return nil, flash.Errorf(flash.Unsupported, "type: %q is not a backend of this daemon; it has %s", typ, names).
				WithRemediation("use one of those, or leave type empty to let the daemon pick")
		}
		return nil, flash.Errorf(flash.Invalid, "type: %q is unknown; use one of %s, or leave it empty to let the daemon pick", typ, names)
	}
	if err := b.check(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, flash.Errorf(flash.Unavailable, "type: the %s backend is not available: %s", b.name, flash.AsError(err).Message).WithCause(err)
	}
	return b, nil
}

func (m *Manager) backendNamed(name string) *managedBackend {
	for _, b := range m.backends {
		if b.name == name {
			return b
		}
	}
	return nil
}

func (m *Manager) backendNames() []string {
	var names []string
	for _, b := range m.backends {
		names = append(names, b.name)
	}
	return names
}

// Backends implements flash.Service.
func (m *Manager) Backends(ctx context.Context) ([]flash.BackendStatus, error) {
	list := make([]flash.BackendStatus, len(m.backends))
	var wg sync.WaitGroup
	for i, b := range m.backends {
		wg.Go(func() {
			err := b.check(ctx)
			info := b.Info()
			s := flash.BackendStatus{
				Name: b.name, Available: err == nil, Isolation: info.Isolation, Version: info.Version,
				Capabilities: backend.Capabilities(b.Backend), Notes: info.Notes, Facts: info.Facts,
			}
			if err != nil {
				s.Reason = flash.AsError(err).Message
			}
			list[i] = s
		})
	}
	wg.Wait()
	return list, nil
}
