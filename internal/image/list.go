package image

import (
	"cmp"
	"slices"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// States of images in a list.
const (
	statePulling   = "pulling"
	stateUnpacking = "unpacking"
	stateReady     = "ready"
	stateFailed    = "failed"
)

// List returns what is cached, under each name it has, pulls under way, and
// pulls that have failed in the last minutes, by reference.
func (s *Store) List() []flash.Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []flash.Image{}
	for _, e := range s.images {
		img := flash.Image{
			Digest: e.digest.String(), State: stateReady, Leases: e.leases, LastUsed: e.lastUsed, SizeBytes: e.sizeLocked(),
		}
		if e.unpacking {
			img.State = stateUnpacking
		}
		named := false
		for key := range e.names {
			if t := s.tags[key]; t != nil && t.digest == e.digest {
				img.Reference, named = shown(key), true
				list = append(list, img)
			}
		}
		if !named { // its tag means another image by now
			img.Reference = img.Digest
			list = append(list, img)
		}
	}
	for _, p := range s.pulls {
		list = append(list, flash.Image{
			Reference: shown(p.ref.key), Digest: p.digest, State: statePulling, DoneBytes: p.done.Load(), WantBytes: p.want.Load(),
		})
	}
	for key, f := range s.failed {
		if time.Since(f.at) < failuresShown && s.pulls[key] == nil {
			list = append(list, flash.Image{Reference: shown(key), State: stateFailed, Error: f.message})
		}
	}
	slices.SortFunc(list, func(a, b flash.Image) int {
		return cmp.Or(cmp.Compare(a.Reference, b.Reference), cmp.Compare(a.State, b.State), cmp.Compare(a.Digest, b.Digest))
	})
	return list
}

// sizeLocked is what an image takes on the disk. Blobs that several images
// share count for each of them.
func (e *entry) sizeLocked() int64 {
	n := int64(len(e.parts.manifest)) + e.parts.config.size
	for _, d := range e.parts.layers {
		n += d.size
	}
	if e.unpacked {
		n += e.rootfsBytes
	}
	return n
}
