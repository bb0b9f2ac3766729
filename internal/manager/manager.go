// Package manager implements flash.Service over backends, images and a store.
//
// It owns what sandboxes are: it checks requests, records each intent before
// its effect, asks a backend for the effect, and reconciles records with what
// really runs whenever a daemon starts. It knows no transport and no
// particular backend.
//
//	m, err := manager.New(manager.Options{Backends: bs, Images: images, Store: st, SnapshotDir: dir, Logger: log})
//	err = m.Reconcile(ctx) // adopt what runs, remove what nobody owns
//	go m.Run(ctx)          // retries and house-keeping
//	defer m.Close()        // leaves sandboxes running
//
// Locking. Each sandbox has two: its turn orders effects (snapshot, resume,
// delete) and may be held for long; its mutex guards the record for the moment
// of a state change. No lock is held across two sandboxes, and reads (Get,
// List) take none.
package manager

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// Images is where images come from. image.Store is one.
type Images interface {
	// Acquire returns the image of a reference, pulled if need be, held until
	// its Release.
	Acquire(ctx context.Context, ref string) (Lease, error)
	// AcquireDigest returns a cached image without any network.
	AcquireDigest(ctx context.Context, digest string) (Lease, error)
	// List returns cached images and pulls under way.
	List() []flash.Image
}

// Lease is an image that stays until Release, which may be called again.
type Lease interface {
	backend.Image
	Release()
}

// Options configures a Manager. Backends, Images, Store, SnapshotDir and
// Logger are required.
type Options struct {
	Backends    []backend.Backend // best first: the order in which "auto" picks
	Images      Images
	Store       store.Store
	SnapshotDir string // absolute, ours alone
	Logger      *slog.Logger
	// Registerer takes the manager's metrics; nil: none are kept.
	Registerer prometheus.Registerer

	OutputLimit     int   // bytes kept per stream of an exec; 0: 8 MiB
	DefaultMemoryMB int64 // for requests that give none; 0: 512
	PidsLimit       int64 // most processes and threads per sandbox; 0: no limit
	// AdoptUnknown is set when the records were lost: machines without a record
	// are then given one, with what is known of them, instead of being removed.
	AdoptUnknown bool
	// DestroyTimeout bounds one attempt to remove a machine; 0: 25 s, just
	// under the 30 s that published clients wait for a stop.
	DestroyTimeout time.Duration
}

// Manager implements flash.Service.
type Manager struct {
	o        Options
	log      *slog.Logger
	backends []*managedBackend
	table    table
	snaps    snapshots
	orphans  orphans
	metrics  *metrics

	ctx    context.Context // ends with Close: watchers stop, machines don't
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ flash.Service = (*Manager)(nil)

// New returns a manager that knows nothing yet; call Reconcile before serving.
func New(o Options) (*Manager, error) {
	if len(o.Backends) == 0 || o.Images == nil || o.Store == nil || o.SnapshotDir == "" || o.Logger == nil {
		return nil, errors.New("manager: Backends, Images, Store, SnapshotDir and Logger are required")
	}
	if o.OutputLimit <= 0 {
		o.OutputLimit = 8 << 20
	}
	if o.DefaultMemoryMB <= 0 {
		o.DefaultMemoryMB = 512
	}
	if o.DestroyTimeout <= 0 {
		o.DestroyTimeout = 25 * time.Second
	}
	m := &Manager{o: o, log: o.Logger}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for _, b := range o.Backends {
		m.backends = append(m.backends, &managedBackend{Backend: b, name: b.Info().Name, log: o.Logger})
	}
	m.metrics = newMetrics(o.Registerer, &m.table)
	return m, nil
}

// Close stops watching and leaves every sandbox running.
func (m *Manager) Close() error {
	m.cancel()
	m.wg.Wait()
	var errs []error
	for _, b := range m.backends {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// Get implements flash.Service. It takes no lock and does no I/O.
func (m *Manager) Get(_ context.Context, id flash.ID) (*flash.Sandbox, error) {
	e, err := m.table.find(id)
	if err != nil {
		return nil, err
	}
	return e.view.Load(), nil
}

// List implements flash.Service.
func (m *Manager) List(context.Context) ([]*flash.Sandbox, error) {
	list := []*flash.Sandbox{}
	for e := range m.table.all() {
		list = append(list, e.view.Load())
	}
	slices.SortFunc(list, func(a, b *flash.Sandbox) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return list, nil
}

// Images implements flash.Service.
func (m *Manager) Images(context.Context) ([]flash.Image, error) {
	if list := m.o.Images.List(); list != nil {
		return list, nil
	}
	return []flash.Image{}, nil
}

// detached returns a context for work that must go on when the request is
// gone, bounded by d.
func detached(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}
