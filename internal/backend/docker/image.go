package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// cacheRepository holds the images that were loaded into the engine.
const cacheRepository = "flash-sandbox/cache"

// ownImage is an image of the engine's own store.
type ownImage struct {
	ref, id, digest string
	config          backend.ImageConfig
}

func (i *ownImage) Reference() string           { return i.ref }
func (i *ownImage) Digest() string              { return i.digest }
func (i *ownImage) Config() backend.ImageConfig { return i.config }

// FindImage implements backend.ImageFinder. References are understood as
// docker run does: "alpine" is docker.io/library/alpine:latest, and an image
// id or a prefix of one counts as well.
func (b *Backend) FindImage(ctx context.Context, ref string) (backend.Image, bool, error) {
	if _, err := reference.ParseAnyReference(ref); err != nil {
		return nil, false, nil // what is no reference is not in the store
	}
	res, err := b.inspectImage(ctx, ref)
	if isNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	img := &ownImage{ref: ref, id: res.ID, digest: res.ID}
	for _, d := range res.RepoDigests {
		if _, digest, ok := strings.Cut(d, "@"); ok {
			img.digest = digest
			break
		}
	}
	if c := res.Config; c != nil {
		img.config = backend.ImageConfig{Env: c.Env, WorkingDir: c.WorkingDir, User: c.User, Entrypoint: c.Entrypoint, Cmd: c.Cmd}
	}
	return img, true, nil
}

func (b *Backend) inspectImage(ctx context.Context, ref string) (client.ImageInspectResult, error) {
	return call(ctx, b.engine, opImage, func(ctx context.Context, c *client.Client) (client.ImageInspectResult, error) {
		return c.ImageInspect(ctx, ref)
	})
}

// ensureImage returns by what name the engine knows img, having loaded it if need be.
func (b *Backend) ensureImage(ctx context.Context, img backend.Image) (string, error) {
	switch i := img.(type) {
	case *ownImage:
		return i.id, nil
	case backend.ArchiveImage:
		return b.ensureLoaded(ctx, i)
	case nil:
		return "", flash.Errorf(flash.Invalid, "image: is missing")
	}
	if a, ok := backend.As[backend.ArchiveImage](img); ok {
		return b.ensureLoaded(ctx, a)
	}
	if o, ok := backend.As[*ownImage](img); ok {
		return o.id, nil
	}
	return "", flash.Errorf(flash.Unsupported, "image: %s can't be handed to a Docker engine", img.Reference())
}

func (b *Backend) ensureLoaded(ctx context.Context, img backend.ArchiveImage) (string, error) {
	tag := cacheTag(img)
	if ref, err := b.loaded(ctx, img, tag); ref != "" || err != nil {
		return ref, err
	}
	load := func(ctx context.Context) error {
		if ref, err := b.loaded(ctx, img, tag); ref != "" || err != nil {
			return err
		}
		b.log.Info("loading an image into the Docker engine", "image", img.Reference())
		return b.load(ctx, img, tag)
	}
	err := b.loads.do(ctx, img.ConfigDigest(), load)
	if err != nil && ctx.Err() == nil && !isUnavailable(err) {
		// It may have been another caller's image, released while being read.
		err = b.loads.do(ctx, img.ConfigDigest(), load)
	}
	if err != nil {
		return "", err
	}
	ref, err := b.loaded(ctx, img, tag)
	if ref == "" && err == nil {
		err = flash.Errorf(flash.Internal, "image: the Docker engine took %s but does not have it", img.Reference())
	}
	return ref, err
}

// cacheTag names an image in the engine's store. Unlike a bare id, a tag keeps
// it from being pruned, and it finds the image in engines whose image id is
// not the config's digest (those with containerd's image store).
func cacheTag(img backend.ArchiveImage) string {
	_, hex, _ := strings.Cut(img.ConfigDigest(), ":")
	return cacheRepository + ":" + hex[:min(24, len(hex))]
}

// loaded returns by what name the engine has img already, "" if it has not.
func (b *Backend) loaded(ctx context.Context, img backend.ArchiveImage, tag string) (string, error) {
	for _, ref := range []string{tag, img.ConfigDigest()} {
		_, err := b.inspectImage(ctx, ref)
		if err == nil {
			return ref, nil
		}
		if !isNotFound(err) {
			return "", err
		}
	}
	return "", nil
}

// load streams img into the engine.
func (b *Backend) load(ctx context.Context, img backend.ArchiveImage, tag string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	written := make(chan error, 1)
	var broken atomic.Bool
	go func() {
		err := img.WriteArchive(ctx, w, tag)
		broken.Store(err != nil)
		_ = w.CloseWithError(err) // never fails
		written <- err
	}()
	err := do(ctx, b.engine, opLoad, func(ctx context.Context, c *client.Client) error {
		res, err := c.ImageLoad(ctx, r, client.ImageLoadWithQuiet(true))
		if err != nil && broken.Load() {
			return errArchive // which the client calls a failure of the connection
		}
		if err != nil {
			return err
		}
		defer func() { _ = res.Close() }()
		return loadResult(res)
	})
	_ = r.CloseWithError(errLoadOver)
	wrote := <-written
	switch {
	case wrote != nil && !errors.Is(wrote, errLoadOver):
		return fmt.Errorf("write image %s for the Docker engine: %w", img.Reference(), wrote)
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case strings.Contains(err.Error(), "no space left"):
		return flash.Errorf(flash.Exhausted, "the Docker engine's disk is full").WithCause(err)
	}
	return wrap("load image "+img.Reference(), err)
}

var errArchive = errors.New("the archive broke off")

var errLoadOver = errors.New("the engine has stopped reading")

// loadResult reads the engine's progress messages, one of which may be an error.
func loadResult(r io.Reader) error {
	dec := json.NewDecoder(r)
	for {
		var msg struct {
			Error string `json:"error"`
		}
		err := dec.Decode(&msg)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case msg.Error != "":
			return errors.New(msg.Error)
		}
	}
}

// flights runs one piece of work per key however many ask. The work is
// cancelled when nobody waits for it any more.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight
}

type flight struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{}
	err     error
}

func (f *flights) do(ctx context.Context, key string, work func(context.Context) error) error {
	f.mu.Lock()
	fl := f.m[key]
	if fl == nil {
		inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight{cancel: cancel, done: make(chan struct{})}
		if f.m == nil {
			f.m = map[string]*flight{}
		}
		f.m[key] = fl
		go func() {
			fl.err = work(inner)
			cancel()
			f.forget(key, fl)
			close(fl.done)
		}()
	}
	fl.waiting++
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	fl.waiting--
	last := fl.waiting == 0
	if last && f.m[key] == fl {
		delete(f.m, key)
	}
	f.mu.Unlock()
	if last {
		// The image is the caller's and may go once the caller has it back.
		fl.cancel()
		<-fl.done
	}
	return ctx.Err()
}

func (f *flights) forget(key string, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m[key] == fl {
		delete(f.m, key)
	}
}
