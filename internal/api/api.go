// Package api holds what the transports have in common: the table that maps
// error codes to HTTP and RPC status codes, the problem document, the JSON
// bodies of the REST wire with their conversions from and to package flash,
// and the notes one request gathers on its way ([Exchange]).
//
// It serves nothing: internal/api/rest and internal/api/rpc
// do, and package client reads what rest writes. It imports package flash and
// the standard library only, so that the command line client stays small.
//
//	http.Error(w, e.Message, api.HTTPStatus(e.Code))
package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// RequestIDHeader carries the id of a request, both ways.
const RequestIDHeader = "X-Request-Id"

// Exchange gathers what is worth logging and counting about one request. The
// server puts one into the context; handlers fill it in. It is used by one
// goroutine at a time.
type Exchange struct {
	RequestID string   // never empty
	Route     string   // pattern such as "GET /sandboxes/{id}" or an RPC procedure; never holds ids
	Sandbox   flash.ID // the sandbox concerned, once its id has been checked
	Err       error    // what the answer reports, nil for success
}

type exchangeKey struct{}

// WithExchange returns a context that carries x.
func WithExchange(ctx context.Context, x *Exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// ExchangeOf returns the exchange in ctx, or one that nobody reads.
func ExchangeOf(ctx context.Context) *Exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*Exchange); ok {
		return x
	}
	return &Exchange{}
}

// RequestID returns sent if it is fit for logs and headers (1 to 128 of
// [A-Za-z0-9._:/+=-]), and a fresh one otherwise.
func RequestID(sent string) string {
	fit := sent != "" && len(sent) <= 128
	for _, r := range sent {
		fit = fit && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._:/+=-", r))
	}
	if !fit {
		return "req-" + strings.ToLower(rand.Text())
	}
	return sent
}

// leftTimeout bounds the removal of a sandbox whose caller has left.
const leftTimeout = 30 * time.Second

// Create makes a sandbox for a request. A caller that left while it was being
// made would never learn its id, so it is then removed.
func Create(ctx context.Context, svc flash.Sandboxes, o flash.CreateOptions) (*flash.Sandbox, error) {
	sb, err := svc.Create(ctx, o)
	if err != nil || ctx.Err() == nil {
		return sb, err
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), leftTimeout)
	defer cancel()
	if err := svc.Delete(clean, sb.ID, flash.DeleteOptions{}); err != nil {
		return nil, fmt.Errorf("remove %s, whose caller has left: %w", sb.ID, err)
	}
	return nil, ctx.Err()
}

// SandboxID checks a sandbox id from a request. One that breaks the rules for
// ids names no sandbox, so the error is the one for unknown sandboxes; only
// an empty one is Invalid.
func SandboxID(s string) (flash.ID, error) {
	if s == "" {
		return "", flash.Errorf(flash.Invalid, "id: is empty")
	}
	id, err := flash.ParseID(s)
	if err != nil {
		return "", &flash.Error{
			Code: flash.NotFound, Reason: ReasonSandboxNotFound, Origin: flash.OriginWorker,
			Message: "sandbox " + quote(s) + " does not exist: an id holds only letters, digits, '-' and '_'",
		}
	}
	return id, nil
}

// SnapshotID checks a snapshot id from a request, in the manner of [SandboxID].
func SnapshotID(s string) (flash.ID, error) {
	id, err := flash.ParseID(s)
	if err != nil {
		return "", &flash.Error{Code: flash.NotFound, Reason: "snapshot_not_found",
			Message: "snapshot " + quote(s) + " does not exist: an id holds only letters, digits, '-' and '_'"}
	}
	return id, nil
}
