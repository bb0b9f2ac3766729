package api

import (
	"net/http"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// RPCCode is a status code of gRPC, as google.golang.org/grpc/codes and
// connectrpc.com/connect number them.
type RPCCode uint32

// row is one line of the table.
type row struct {
	code    flash.Code
	http    int
	rpc     RPCCode
	outcome string
}

// Outcomes, as clients since 0.4.0 read them: whether a failed request may
// have had an effect.
const (
	OutcomeNotDispatched = "not_dispatched" // nothing happened
	OutcomeUncertain     = "uncertain"      // it may have
)

// StatusClientClosed is the status of an answer nobody waits for any more, as
// nginx logs it. It is counted apart from failures.
const StatusClientClosed = 499

// table is the one place where codes meet transports.
//
// Published clients repeat any request, creates and execs included, when they
// see 502 or 503, so Unavailable must mean that nothing has happened. They take
// 404 to mean that the sandbox is gone for good.
var table = []row{
	{flash.Invalid, http.StatusBadRequest, 3, OutcomeNotDispatched},
	{flash.Unauthenticated, http.StatusUnauthorized, 16, OutcomeNotDispatched},
	{flash.Denied, http.StatusForbidden, 7, OutcomeNotDispatched},
	{flash.NotFound, http.StatusNotFound, 5, OutcomeNotDispatched},
	{flash.Exists, http.StatusConflict, 6, OutcomeNotDispatched},
	{flash.Conflict, http.StatusConflict, 9, OutcomeNotDispatched},
	{flash.Exhausted, http.StatusTooManyRequests, 8, OutcomeNotDispatched},
	{flash.Unsupported, http.StatusNotImplemented, 12, OutcomeNotDispatched},
	{flash.Unavailable, http.StatusServiceUnavailable, 14, OutcomeNotDispatched},
	{flash.Timeout, http.StatusGatewayTimeout, 4, OutcomeUncertain},
	{flash.Canceled, StatusClientClosed, 1, OutcomeUncertain},
	{flash.Internal, http.StatusInternalServerError, 13, OutcomeUncertain},
}

func find(c flash.Code) row {
	for _, r := range table {
		if r.code == c {
			return r
		}
	}
	return table[len(table)-1]
}

// HTTPStatus returns the HTTP status for a code; an unknown one is Internal.
func HTTPStatus(c flash.Code) int { return find(c).http }

// RPC returns the RPC code for a code; an unknown one is Internal.
func RPC(c flash.Code) RPCCode { return find(c).rpc }

// Outcome says whether a request that failed with a code may have had an effect.
func Outcome(c flash.Code) string { return find(c).outcome }

// outcomeOf is Outcome for an error, which may know better than its code.
func outcomeOf(e *flash.Error) string {
	if e.Uncertain {
		return OutcomeUncertain
	}
	return Outcome(e.Code)
}

// FromHTTPStatus guesses the code behind a status that came without a problem
// document, from a proxy for instance. Two codes share 409; it says Conflict.
func FromHTTPStatus(status int) flash.Code {
	switch status {
	case http.StatusConflict:
		return flash.Conflict
	case http.StatusBadGateway:
		return flash.Unavailable
	}
	for _, r := range table {
		if r.http == status {
			return r.code
		}
	}
	if status >= 400 && status < 500 {
		return flash.Invalid
	}
	return flash.Internal
}

// FromRPC guesses the code behind an RPC code that came without our metadata.
func FromRPC(c RPCCode) flash.Code {
	for _, r := range table {
		if r.rpc == c {
			return r.code
		}
	}
	return flash.Internal
}

// Known reports whether c is one of [flash.Codes].
func Known(c flash.Code) bool { return find(c).code == c }
