package rpc

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// Metadata that carries an error beside its status, so that our own client can
// rebuild it. Texts are percent-encoded.
const (
	metaCode        = "Fsb-Error-Code"
	metaReason      = "Fsb-Error-Reason"
	metaOrigin      = "Fsb-Error-Origin"
	metaMessage     = "Fsb-Error-Message"
	metaRemediation = "Fsb-Error-Remediation"
)

// toConnect turns an error into its RPC form. Published clients show the
// message only, so the remediation is part of it. Nothing of a hidden cause
// gets out.
func toConnect(err error) *connect.Error {
	e := flash.AsError(err)
	c := connect.NewError(connect.Code(api.RPC(e.Code)), errors.New(api.Sentence(e)))
	m := c.Meta()
	m.Set(metaCode, string(e.Code))
	m.Set(metaMessage, url.PathEscape(e.Message))
	for key, value := range map[string]string{metaReason: e.Reason, metaOrigin: e.Origin, metaRemediation: e.Remediation} {
		if value != "" {
			m.Set(key, url.PathEscape(value))
		}
	}
	return c
}

// fromConnect rebuilds the error that toConnect wrote. One that no server of
// ours has written, such as a broken connection, is told by its RPC code.
func fromConnect(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch ctx.Err() {
	case nil:
	case context.DeadlineExceeded:
		return flash.Errorf(flash.Timeout, "no answer in the time given").WithCause(context.DeadlineExceeded)
	default:
		return flash.Errorf(flash.Canceled, "the caller left before the answer").WithCause(context.Canceled)
	}
	var c *connect.Error
	if !errors.As(err, &c) {
		return flash.Errorf(flash.Unavailable, "the server can't be reached: %v", err).WithCause(err)
	}
	get := func(key string) string {
		s, uerr := url.PathUnescape(meta(c.Meta(), key))
		if uerr != nil {
			return ""
		}
		return s
	}
	if code := flash.Code(get(metaCode)); api.Known(code) {
		return &flash.Error{Code: code, Reason: get(metaReason), Origin: get(metaOrigin), Message: get(metaMessage), Remediation: get(metaRemediation)}
	}
	return &flash.Error{Code: api.FromRPC(api.RPCCode(c.Code())), Reason: "foreign_answer", Message: c.Message(), Err: err}
}

// meta reads a key that HTTP/1.1 and HTTP/2 may spell in different cases.
func meta(h http.Header, key string) string {
	if v := h.Get(key); v != "" {
		return v
	}
	for k, v := range h {
		if strings.EqualFold(k, key) && len(v) > 0 {
			return v[0]
		}
	}
	return ""
}
