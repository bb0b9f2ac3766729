package api

import (
	"net/http"
	"strconv"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// ProblemType is the media type of error bodies (RFC 9457).
const ProblemType = "application/problem+json"

// Reasons that this layer gives or reads.
const (
	ReasonSandboxNotFound = "sandbox_not_found"
	ReasonRouteNotFound   = "route_not_found"
	ReasonMethod          = "method_not_allowed"
	ReasonTooLarge        = "body_too_large"
)

// Problem is the body of every error. The first four members are RFC 9457's;
// code, message, origin and outcome are those that published clients read.
type Problem struct {
	Type        string `json:"type" doc:"Always about:blank; the code says more."`
	Title       string `json:"title" doc:"The HTTP status in words."`
	Status      int    `json:"status" doc:"The HTTP status."`
	Detail      string `json:"detail" doc:"What went wrong, in a sentence."`
	Code        string `json:"code" doc:"What went wrong, for programs: the finest word there is, such as sandbox_not_found."`
	Kind        string `json:"kind" doc:"One of the few kinds of failure: invalid, not_found, conflict, ..."`
	Message     string `json:"message" doc:"The detail, followed by the remediation if there is one."`
	Origin      string `json:"origin" enum:"worker,server" doc:"worker: about one sandbox. server: about the request or the daemon."`
	Outcome     string `json:"outcome" enum:"not_dispatched,uncertain" doc:"Whether the request may have had an effect."`
	Remediation string `json:"remediation,omitempty" doc:"What to do about it."`
	RequestID   string `json:"request_id,omitempty" doc:"As in the header X-Request-Id; the daemon's log knows it."`
}

// httpReasons are the refusals of the HTTP layer whose status is more precise
// than that of their code.
var httpReasons = map[string]int{
	ReasonMethod:   http.StatusMethodNotAllowed,
	ReasonTooLarge: http.StatusRequestEntityTooLarge,
}

// ProblemOf describes an error. Nothing of a hidden cause gets into it.
func ProblemOf(err error, requestID string) Problem {
	e := flash.AsError(err)
	p := Problem{
		Type: "about:blank", Status: HTTPStatus(e.Code), Detail: e.Message, Code: e.Reason, Kind: string(e.Code),
		Message: Sentence(e), Origin: e.Origin, Outcome: outcomeOf(e), Remediation: e.Remediation, RequestID: requestID,
	}
	if s, ok := httpReasons[e.Reason]; ok {
		p.Status = s
	}
	if p.Code == "" {
		p.Code = string(e.Code)
	}
	if p.Origin == "" {
		p.Origin = flash.OriginServer
	}
	if !Known(e.Code) {
		p.Kind = string(flash.Internal)
	}
	if p.Title = http.StatusText(p.Status); p.Title == "" {
		p.Title = "Client Closed Request"
	}
	return p
}

// Sentence returns an error's message with its remediation, for wires that
// have room for one text only.
func Sentence(e *flash.Error) string {
	if e.Remediation == "" {
		return e.Message
	}
	return e.Message + "; " + e.Remediation
}

// Err rebuilds the error that p describes.
func (p *Problem) Err() *flash.Error {
	e := &flash.Error{Code: flash.Code(p.Kind), Origin: p.Origin, Message: p.Detail, Remediation: p.Remediation}
	if !Known(e.Code) {
		e.Code = FromHTTPStatus(p.Status)
	}
	if p.Code != string(e.Code) {
		e.Reason = p.Code
	}
	if e.Message == "" {
		e.Message = p.Message
	}
	if e.Message == "" {
		e.Message = "the server answered with HTTP status " + strconv.Itoa(p.Status)
	}
	return e
}
