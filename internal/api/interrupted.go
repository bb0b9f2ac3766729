package api

import (
	"context"
	"errors"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// ReasonInterrupted is the wire code of requests that the end of the daemon cut
// short.
const ReasonInterrupted = "interrupted"

// Interrupted returns the error for a request that the end of the daemon cut
// short. As the cause of a request's context it decides the answer, see
// [Settle]. It is Internal, whose statuses make no client repeat the request:
// the command of an exec may have done its work already.
func Interrupted() error {
	return (&flash.Error{
		Code: flash.Internal, Reason: ReasonInterrupted, Origin: flash.OriginServer,
		Message: "the daemon was stopped while it worked on this request; it may have had an effect",
	}).WithRemediation("look at the state of the sandbox before you send it again")
}

// Settle returns the error to answer a request with that failed with err. In a
// request that was interrupted a failure says nothing about what was done
// until then, unless it is a refusal.
func Settle(ctx context.Context, err error) error {
	var in *flash.Error
	if err == nil || !errors.As(context.Cause(ctx), &in) || in.Reason != ReasonInterrupted {
		return err
	}
	e := flash.AsError(err)
	if Outcome(e.Code) == OutcomeNotDispatched && e.Code != flash.Unavailable {
		return err
	}
	answer := *in
	return answer.WithCause(err)
}
