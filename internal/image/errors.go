package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// reasonNotFound is the wire code of an image that no registry has. It is not a
// NotFound error: on a create, 404 would be read as a missing sandbox.
const reasonNotFound = "image_not_found"

var errPlainHTTP = errors.New("refusing to speak to it without TLS")

func notFound(format string, args ...any) *flash.Error {
	e := flash.Errorf(flash.Invalid, format, args...)
	e.Reason, e.Origin = reasonNotFound, flash.OriginServer
	return e
}

// errUndecided marks errors in which the registry an image is named after had
// no say: what mirrors lack or refuse may be there all the same.
var errUndecided = errors.New("the registry itself did not answer")

// refusal is what one registry or mirror said instead of an image.
type refusal struct {
	host   string
	mirror bool
	err    error
}

type refusals []refusal

// err puts the refusals together. What the registry itself says decides, if it
// says that the image is not found or not to be had. If it can't be reached,
// the refusals of its mirrors count, as far as they go: such an error is
// errUndecided.
func (rs refusals) err(ref name.Reference) error {
	code, origin, reached := flash.Unavailable, flash.Unavailable, false
	var reasons []string
	var cause error
	for _, r := range rs {
		c, reason := refusalReason(r.err)
		switch {
		case !r.mirror:
			var te *transport.Error
			origin, reached = c, errors.As(r.err, &te)
		case c == flash.Denied, c == flash.NotFound && code != flash.Denied:
			code = c
		}
		reasons = append(reasons, r.host+": "+reason)
		cause = errors.Join(cause, r.err)
	}
	image, all := shown(ref.Name()), strings.Join(reasons, "; ")
	undecided := origin == flash.Unavailable
	if !undecided || reached { // busy or broken itself: that passes
		code = origin
	}
	if undecided {
		cause = errors.Join(cause, errUndecided)
	}
	switch {
	case code == flash.NotFound && undecided:
		return notFound("image: %s was not found at a mirror, and its registry can't be reached (%s)", image, all).WithCause(cause).
			WithRemediation("check the name, or try again when the registry can be reached")
	case code == flash.NotFound:
		return notFound("image: %s was not found (%s)", image, all).WithCause(cause)
	case code == flash.Denied:
		return flash.Errorf(flash.Denied, "image: %s does not exist or may not be pulled with the credentials there are (%s)", image, all).
			WithCause(cause).WithRemediation("check the name, or log in to the registry with `docker login` as the user that runs the daemon")
	}
	return flash.Errorf(flash.Unavailable, "image: %s can't be pulled now (%s)", image, all).WithCause(cause)
}

// refusalReason says what kind of failure an answer of a registry is, and why
// in words that are fit to be shown.
func refusalReason(err error) (flash.Code, string) {
	var te *transport.Error
	if errors.As(err, &te) {
		for _, d := range te.Errors {
			switch d.Code {
			case transport.ManifestUnknownErrorCode, transport.NameUnknownErrorCode, transport.BlobUnknownErrorCode:
				return flash.NotFound, "not found"
			case transport.UnauthorizedErrorCode, transport.DeniedErrorCode:
				return flash.Denied, "access denied"
			case transport.TooManyRequestsErrorCode:
				return flash.Unavailable, "too many requests, try again later"
			}
		}
		switch te.StatusCode {
		case http.StatusNotFound:
			return flash.NotFound, "not found"
		case http.StatusUnauthorized, http.StatusForbidden:
			return flash.Denied, "access denied"
		case http.StatusTooManyRequests:
			return flash.Unavailable, "too many requests, try again later"
		}
		return flash.Unavailable, fmt.Sprintf("answered with status %d", te.StatusCode)
	}
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, errPlainHTTP):
		return flash.Unavailable, "is reached without TLS only, which is allowed for loopback and listed registries alone"
	case errors.As(err, &dns):
		return flash.Unavailable, "its name can't be resolved"
	case errors.Is(err, unix.ECONNREFUSED):
		return flash.Unavailable, "refuses connections"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return flash.Unavailable, "did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return flash.Unavailable, "broke the connection"
	case errors.As(err, &op):
		return flash.Unavailable, "can't be reached"
	}
	return flash.Unavailable, "failed"
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// diskError makes a full disk and a directory that can't be written errors that
// users may see.
func diskError(err error) error {
	var fe *flash.Error
	switch {
	case err == nil || errors.As(err, &fe):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return flash.Errorf(flash.Exhausted, "image: the disk that holds the images is full").WithCause(err)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return flash.Errorf(flash.Unavailable, "image: the image directory can't be written").WithCause(err)
	}
	return err
}
