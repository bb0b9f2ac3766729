package api_test

import (
	"context"
	"errors"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// In a request that was interrupted only refusals are believed.
func TestSettle(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	child, stop := context.WithCancel(ctx)
	defer stop()
	for _, code := range flash.Codes {
		if err := flash.Errorf(code, "x"); flash.AsError(api.Settle(child, err)) != err {
			t.Errorf("%s is not kept in a request that goes on", code)
		}
	}
	cancel(api.Interrupted())
	if api.Settle(child, nil) != nil {
		t.Error("what succeeded failed")
	}
	for _, code := range flash.Codes {
		err := flash.Errorf(code, "x")
		got := flash.AsError(api.Settle(child, err))
		switch code {
		case flash.Unavailable, flash.Timeout, flash.Canceled, flash.Internal:
			p := api.ProblemOf(got, "")
			if p.Code != api.ReasonInterrupted || p.Status != 500 || p.Outcome != api.OutcomeUncertain || !errors.Is(got, code) {
				t.Errorf("%s became %+v", code, p)
			}
		default:
			if got != err {
				t.Errorf("%s became %v", code, got)
			}
		}
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	if err := api.Settle(left, left.Err()); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who left: %v", err)
	}
}
