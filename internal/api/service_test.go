package api_test

import (
	"testing"

	"github.com/flash-sandbox/flash-sandbox/internal/api/servicetest"
)

func subject() servicetest.Subject {
	return servicetest.Subject{
		Image: "busybox:latest", PlainImage: "plain:latest", MissingImage: "missing:latest", OutputLimit: outputLimit, FreezesFiles: true,
	}
}

func TestServiceInProcess(t *testing.T) {
	s := subject()
	s.Sandboxes = openManager(t)
	servicetest.Run(t, s)
}

func TestServiceOverREST(t *testing.T) {
	s := subject()
	s.Sandboxes = restClient(t, serve(t, openManager(t)).HTTPAddr())
	s.Text, s.Remote = true, true
	servicetest.Run(t, s)
}

func TestServiceOverRPC(t *testing.T) {
	s := subject()
	s.Sandboxes = rpcClient(t, "http://"+serve(t, openManager(t)).GRPCAddr())
	s.Text, s.Remote, s.Narrow = true, true, true
	servicetest.Run(t, s)
}
