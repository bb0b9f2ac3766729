package flash

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Code says what kind of failure an [Error] is. A Code is itself an error, so
// errors.Is(err, flash.NotFound) works through any wrapping.
type Code string

// The codes. Clients decide by this string, never by a transport's status.
const (
	Invalid         Code = "invalid"         // the request could never succeed; the message names the field
	Unauthenticated Code = "unauthenticated" // who are you
	Denied          Code = "denied"          // you may not
	NotFound        Code = "not_found"       // no such thing, also said of what others own
	Exists          Code = "exists"          // the name is taken
	Conflict        Code = "conflict"        // the state forbids it; the remediation says what to do first
	Exhausted       Code = "exhausted"       // quota, disk or host full
	Unsupported     Code = "unsupported"     // this backend lacks the capability
	Unavailable     Code = "unavailable"     // draining, or a backend is not there now; retry
	Timeout         Code = "timeout"         // took too long
	Canceled        Code = "canceled"        // the caller left
	Internal        Code = "internal"        // ours; the details are in the log
)

// Codes lists every code, for tests that must cover them all.
var Codes = []Code{
	Invalid, Unauthenticated, Denied, NotFound, Exists, Conflict, Exhausted,
	Unsupported, Unavailable, Timeout, Canceled, Internal,
}

func (c Code) Error() string { return string(c) }

// Origins of an error: which part of the system refused. Published clients
// tell a lost sandbox from a wrong route by it.
const (
	OriginWorker = "worker" // speaks about one sandbox
	OriginServer = "server" // speaks about the request or the daemon
)

// Error is a failure fit for users: Message and Remediation may be shown, Err
// may not and goes to the log only.
type Error struct {
	Code        Code
	Reason      string // finer wire code such as "sandbox_not_found"; empty means string(Code)
	Origin      string // OriginWorker or OriginServer; empty means OriginServer
	Message     string // one sentence, names the field or the thing
	Remediation string // what to do about it; may be empty
	Uncertain   bool   // the request may have had an effect, whatever the code says of others
	Err         error  // cause, for the log
}

// Errorf returns an Error with a message for users. A %w verb also records the
// cause, whose text is then part of the message: use it only for causes fit
// to be shown.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithRemediation returns e with the remediation set.
func (e *Error) WithRemediation(format string, args ...any) *Error {
	e.Remediation = fmt.Sprintf(format, args...)
	return e
}

// WithCause returns e with its hidden cause set.
func (e *Error) WithCause(err error) *Error {
	e.Err = err
	return e
}

func (e *Error) Error() string {
	if e.Err != nil && !errors.Is(e.Err, e) {
		if msg := e.Err.Error(); msg != e.Message && !strings.Contains(e.Message, msg) {
			return e.Message + ": " + msg
		}
	}
	return e.Message
}

// Unwrap returns the hidden cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, flash.NotFound) true for an Error with that code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// SandboxNotFound is the error for an id that no sandbox has, or no longer.
// cause may name how a sandbox of that id ended; it may be empty.
func SandboxNotFound(id ID, cause string) *Error {
	msg := fmt.Sprintf("sandbox %s does not exist", id)
	if cause != "" {
		msg += ": " + cause
	}
	return &Error{Code: NotFound, Reason: "sandbox_not_found", Origin: OriginWorker, Message: msg}
}

// AsError returns err as an *Error: the first one in its chain; a context's
// end as Timeout or Canceled; anything else as Internal with the message
// "internal error" and err as hidden cause. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var c Code
	switch {
	case errors.As(err, &c):
		return &Error{Code: c, Message: string(c), Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Timeout, Message: "took too long", Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Message: "the caller left", Err: err}
	}
	return &Error{Code: Internal, Message: "internal error", Err: err}
}
