package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// How long registries may take. A download as a whole may take as long as it
// wants, as long as it makes progress.
const (
	dialTimeout    = 10 * time.Second
	headerTimeout  = 30 * time.Second
	resolveTimeout = 60 * time.Second
	// recheckTimeout is for asking whether a tag that is cached has moved.
	recheckTimeout = 10 * time.Second
)

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          32,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       60 * time.Second,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
	}
}

// endpoint is one place to ask for the images of a repository.
type endpoint struct {
	host   string
	mirror bool
	repo   name.Repository
	puller *remote.Puller
}

// registrySource asks the mirrors of a registry and then the registry itself.
type registrySource struct {
	ref       name.Reference
	endpoints []endpoint
	answered  int // the endpoint that knew the image; it is asked first for the rest
}

func (s *Store) registrySource(ref name.Reference) (*registrySource, error) {
	src := &registrySource{ref: ref}
	origin := ref.Context()
	for _, m := range s.mirrors[origin.RegistryStr()] {
		opts := []name.Option{name.WeakValidation}
		if m.http {
			opts = append(opts, name.Insecure)
		}
		repo, err := name.NewRepository(m.host+"/"+m.prefix+origin.RepositoryStr(), opts...)
		if err != nil {
			return nil, fmt.Errorf("name of repository at mirror %s: %w", m.host, err)
		}
		if err := s.addEndpoint(src, endpoint{host: m.host, mirror: true, repo: repo}, m.http); err != nil {
			return nil, err
		}
	}
	// The library takes private addresses for insecure ones; policy holds it to
	// our own rule.
	host := origin.RegistryStr()
	if s.mayUseHTTP(host) {
		repo, err := name.NewRepository(origin.Name(), name.WeakValidation, name.Insecure)
		if err != nil {
			return nil, fmt.Errorf("name of repository: %w", err)
		}
		origin = repo
	}
	if err := s.addEndpoint(src, endpoint{host: host, repo: origin}, s.mayUseHTTP(host)); err != nil {
		return nil, err
	}
	return src, nil
}

func (s *Store) addEndpoint(src *registrySource, e endpoint, plain bool) error {
	puller, err := remote.NewPuller(
		remote.WithTransport(&policy{next: s.transport, store: s, host: e.host, plain: plain}),
		remote.WithAuthFromKeychain(s.cfg.Keychain),
		remote.WithUserAgent("flash-sandbox"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
	)
	if err != nil {
		return fmt.Errorf("client of registry %s: %w", e.host, err)
	}
	e.puller = puller
	src.endpoints = append(src.endpoints, e)
	return nil
}

// policy lets requests go without TLS only where that is allowed: to the host
// that was asked for, if it may be, and to hosts that are listed. A registry
// elsewhere can't send the daemon to a service on loopback.
type policy struct {
	next  http.RoundTripper
	store *Store
	host  string
	plain bool
}

func (p *policy) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && (r.URL.Host != p.host || !p.plain) && !p.store.insecure[r.URL.Host] {
		return nil, fmt.Errorf("%w: %s", errPlainHTTP, r.URL.Host)
	}
	return p.next.RoundTrip(r)
}

// at returns the reference as it is called at an endpoint.
func (e *endpoint) at(ref name.Reference) name.Reference {
	if d, ok := ref.(name.Digest); ok {
		return e.repo.Digest(d.DigestStr())
	}
	return e.repo.Tag(ref.Identifier())
}

// each asks the endpoints in order until one has an answer.
func (r *registrySource) each(ctx context.Context, ask func(*endpoint) error) error {
	var all refusals
	for i := range r.endpoints {
		// The one that answered before comes first.
		n := (i + r.answered) % len(r.endpoints)
		e := &r.endpoints[n]
		err := ask(e)
		if err == nil {
			r.answered = n
			return nil
		}
		if ctx.Err() != nil {
			return timeoutOr(ctx, e.host)
		}
		all = append(all, refusal{host: e.host, mirror: e.mirror, err: err})
	}
	return all.err(r.ref)
}

func timeoutOr(ctx context.Context, host string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return flash.Errorf(flash.Unavailable, "image: registry %s did not answer in time", host).WithCause(context.DeadlineExceeded)
	}
	return ctx.Err()
}

// head returns the digest that the reference has now.
func (r *registrySource) head(ctx context.Context) (v1.Hash, error) {
	var digest v1.Hash
	err := r.each(ctx, func(e *endpoint) error {
		d, err := e.puller.Head(ctx, e.at(r.ref))
		if err == nil {
			digest = d.Digest
			return nil
		}
		if !strings.Contains(err.Error(), "did not include") { // the digest or the size: see the library's headManifest
			return err
		}
		got, err := e.puller.Get(ctx, e.at(r.ref))
		if err == nil {
			digest = got.Digest
		}
		return err
	})
	return digest, err
}

func (r *registrySource) root(ctx context.Context) (descriptor, []byte, error) {
	var d descriptor
	var raw []byte
	err := r.each(ctx, func(e *endpoint) error {
		got, err := e.puller.Get(ctx, e.at(r.ref))
		if err == nil {
			d = descriptor{digest: got.Digest, mediaType: got.MediaType, size: got.Size}
			raw = got.Manifest
		}
		return err
	})
	return d, raw, err
}

func (r *registrySource) manifest(ctx context.Context, d descriptor) ([]byte, error) {
	var raw []byte
	err := r.each(ctx, func(e *endpoint) error {
		got, err := e.puller.Get(ctx, e.repo.Digest(d.digest.String()))
		if err == nil {
			raw = got.Manifest
		}
		return err
	})
	return raw, err
}

func (r *registrySource) blob(ctx context.Context, d descriptor) (io.ReadCloser, error) {
	var rc io.ReadCloser
	// A copy: several layers are fetched at once.
	each := registrySource{ref: r.ref, endpoints: r.endpoints, answered: r.answered}
	err := each.each(ctx, func(e *endpoint) error {
		l, err := e.puller.Layer(ctx, e.repo.Digest(d.digest.String()))
		if err != nil {
			return err
		}
		rc, err = l.Compressed()
		return err
	})
	return rc, err
}

func (r *registrySource) shared() bool { return true }
func (r *registrySource) close()       {}
