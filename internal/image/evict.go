package image

import (
	"os"
	"strconv"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// reserve promises n bytes of the disk budget to the caller, and evicts what
// nobody uses until there is room. release gives a promise back, kept or not.
func (s *Store) reserve(n int64) error {
	var trash []string
	var evicted []string
	defer func() {
		s.empty(trash)
		if len(evicted) > 0 {
			s.log.Info("evicted images", "digests", evicted)
			if err := s.save(false); err != nil {
				s.log.Warn("can't write the image index", "err", err)
			}
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.DiskBudget > 0 && s.used+s.reserved+n > s.cfg.DiskBudget {
		if kept := s.heldLocked() + s.reserved; kept+n > s.cfg.DiskBudget {
			return flash.Errorf(flash.Exhausted,
				"image: %d bytes are needed, and of the image cache's budget of %d bytes %d are taken by images in use",
				n, s.cfg.DiskBudget, kept).WithRemediation("stop sandboxes, or raise the disk budget for images")
		}
		for s.used+s.reserved+n > s.cfg.DiskBudget {
			paths, digest, ok := s.evictLocked()
			if !ok {
				break
			}
			trash = append(trash, paths...)
			if digest != "" {
				evicted = append(evicted, digest)
			}
		}
	}
	s.reserved += n
	return nil
}

// heldLocked returns the bytes that can't be evicted now.
func (s *Store) heldLocked() int64 {
	var n int64
	held := map[string]bool{}
	for name := range s.pinned {
		held[name] = true
	}
	for _, e := range s.images {
		if !s.heldEntryLocked(e) {
			continue
		}
		for _, h := range e.blobs() {
			held[h.String()] = true
		}
		if e.unpacked {
			n += e.rootfsBytes
		}
	}
	for name := range held {
		n += s.blobs[name]
	}
	return n
}

// empty deletes what was moved out of the way.
func (s *Store) empty(trash []string) {
	for _, p := range trash {
		if err := os.RemoveAll(p); err != nil {
			s.log.Warn("can't remove what was evicted from the image cache", "path", p, "err", err)
		}
	}
}

func (s *Store) release(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= n
}

// evictLocked takes one thing out of the cache: blobs that no image needs, or
// the image that was not used for longest. It returns what is left to delete
// once the lock is released, since that may take long.
func (s *Store) evictLocked() (trash []string, digest string, ok bool) {
	needed := map[string]bool{}
	var oldest *entry
	for _, e := range s.images {
		for _, h := range e.blobs() {
			needed[h.String()] = true
		}
		if !s.heldEntryLocked(e) && (oldest == nil || e.lastUsed.Before(oldest.lastUsed)) {
			oldest = e
		}
	}
	if trash = s.dropBlobsLocked(needed); len(trash) > 0 {
		return trash, "", true
	}
	if oldest == nil {
		return nil, "", false
	}
	return s.forgetLocked(oldest), oldest.digest.String(), true
}

// heldEntryLocked reports whether an image is leased, being unpacked or being
// pulled again at this moment.
func (s *Store) heldEntryLocked(e *entry) bool {
	return e.leases > 0 || e.busy > 0 || s.pinned[e.digest.String()] > 0
}

// forgetLocked takes an image out of the cache.
func (s *Store) forgetLocked(e *entry) (trash []string) {
	delete(s.images, e.digest.String())
	for key, t := range s.tags {
		if t.digest == e.digest {
			delete(s.tags, key)
		}
	}
	if e.unpacked {
		if p, ok := s.discardLocked(s.path("rootfs", e.digest.Hex)); ok {
			trash = append(trash, p)
		}
		s.used -= e.rootfsBytes
		e.unpacked = false
	}
	needed := map[string]bool{}
	for _, other := range s.images {
		for _, h := range other.blobs() {
			needed[h.String()] = true
		}
	}
	return append(trash, s.dropBlobsLocked(needed)...)
}

// dropBlobsLocked takes blobs out of the cache that are neither needed nor pinned.
func (s *Store) dropBlobsLocked(needed map[string]bool) (trash []string) {
	for name, size := range s.blobs {
		if needed[name] || s.pinned[name] > 0 {
			continue
		}
		h, err := v1.NewHash(name)
		if err != nil {
			continue
		}
		if p, ok := s.discardLocked(s.blobPath(h)); ok {
			trash = append(trash, p)
		}
		delete(s.blobs, name)
		s.used -= size
	}
	return trash
}

// discardLocked moves something out of the way and returns where to.
func (s *Store) discardLocked(path string) (string, bool) {
	to := s.path("trash", strconv.FormatInt(time.Now().UnixNano(), 36))
	for i := 0; ; i++ {
		if _, err := os.Lstat(to); err != nil {
			break
		}
		to += strconv.Itoa(i)
	}
	if err := os.Rename(path, to); err != nil {
		s.log.Warn("can't evict from the image cache", "path", path, "err", err)
		return "", false
	}
	return to, true
}
