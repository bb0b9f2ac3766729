package docker

import (
	"context"
	"maps"
	"sync"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// doomed are things in the engine that must go but could not be removed, or
// may come into being late, when a hung engine wakes: containers by the attempt
// that made them, and images by their tag.
type doomed struct {
	mu     sync.Mutex
	things map[string]doomedThing
}

type doomedThing struct {
	name  string // where to look for it
	since time.Time
}

// doomedFor is how long a thing is looked for after the engine has been well.
const doomedFor = 10 * time.Minute

func (d *doomed) add(key, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.things == nil {
		d.things = map[string]doomedThing{}
	}
	d.things[key] = doomedThing{name: name, since: time.Now()}
}

func (d *doomed) list() map[string]doomedThing {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.things)
}

// has reports whether anything is looked for under name.
func (d *doomed) has(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.things {
		if t.name == name {
			return true
		}
	}
	return false
}

func (d *doomed) drop(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.things, key)
}

// sweep removes what is doomed, as far as the engine lets it.
func (b *Backend) sweep(ctx context.Context) {
	b.sweepContainers(ctx)
	b.sweepImages(ctx)
}

// sweepContainers goes by the attempt: under the same name a later attempt may
// have made a container that lives.
func (b *Backend) sweepContainers(ctx context.Context) {
	for attempt, d := range b.doomed.list() {
		found, err := (&Machine{b: b, cid: d.name}).inspect(ctx)
		switch {
		case err == nil && found.Config.Labels[labelAttempt] == attempt:
			m := &Machine{b: b, id: flash.ID(found.Config.Labels[labelID]), cid: found.ID}
			if m.remove(ctx) == nil {
				b.doomed.drop(attempt)
			}
		case time.Since(d.since) > doomedFor && !isUnavailable(err):
			b.doomed.drop(attempt)
		}
	}
}

func (b *Backend) sweepImages(ctx context.Context) {
	for tag, d := range b.doomedImages.list() {
		if !b.doomedImages.has(tag) {
			continue // a new snapshot of that name is being made
		}
		there, err := b.dropImage(ctx, tag)
		if err == nil && (there || time.Since(d.since) > doomedFor) {
			b.doomedImages.drop(tag)
		}
	}
}
