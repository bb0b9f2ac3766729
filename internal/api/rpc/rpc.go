// Package rpc serves flash.Sandboxes as the gRPC service sandbox.SandboxService
// that published clients speak, and has a client for it.
//
// The wire is proto/sandbox/sandbox.proto and narrower than package flash: a
// sandbox can't be given an id, an environment or a snapshot to restore, a
// command no deadline of its own, and Python's output is one text. Requests may come as gRPC, gRPC-Web or
// Connect, over HTTP/1.1 or HTTP/2.
//
//	mux.Handle(rpc.New(service)) // below /sandbox.SandboxService/
package rpc

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"

	"connectrpc.com/connect"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
	"github.com/flash-sandbox/flash-sandbox/proto/sandbox"
	"github.com/flash-sandbox/flash-sandbox/proto/sandbox/sandboxconnect"
)

// Path is the prefix of every procedure.
const Path = "/" + sandboxconnect.SandboxServiceName + "/"

// maxMessage is the longest request taken, in bytes after decompression.
const maxMessage = 4 << 20

// Header of replies that say more than their message can.
const (
	headerCause    = "Fsb-Cause"
	headerExitCode = "Fsb-Exit-Code"
	headerDuration = "Fsb-Duration-Ms"
	headerStdout   = "Fsb-Stdout-Dropped"
	headerStderr   = "Fsb-Stderr-Dropped"
)

// New returns the path below which the service answers, and its handler.
func New(svc flash.Sandboxes) (string, http.Handler) {
	path, h := sandboxconnect.NewSandboxServiceHandler(&server{svc},
		connect.WithReadMaxBytes(maxMessage),
		// Compressed requests are read, but answers go out as they are: the
		// other end is near, and time is worth more than bytes.
		connect.WithCompressMinBytes(math.MaxInt),
		connect.WithInterceptors(connect.UnaryInterceptorFunc(observe)),
		connect.WithRecover(func(ctx context.Context, spec connect.Spec, _ http.Header, p any) error {
			err := fmt.Errorf("panic in %s: %v\n%s", spec.Procedure, p, debug.Stack())
			api.ExchangeOf(ctx).Err = err
			return toConnect(err)
		}),
	)
	return path, h
}

// observe notes the route and the error, and gives errors their RPC form.
func observe(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		x := api.ExchangeOf(ctx)
		x.Route = r.Spec().Procedure
		if named, ok := r.Any().(interface{ GetId() string }); ok {
			id, err := api.SandboxID(named.GetId())
			if err != nil {
				x.Err = err
				return nil, toConnect(err)
			}
			x.Sandbox = id
		}
		resp, err := next(ctx, r)
		if err != nil {
			err = api.Settle(ctx, err)
			x.Err = err
			return nil, toConnect(err)
		}
		return resp, nil
	}
}

// server turns messages into calls. Ids have been checked by observe.
type server struct{ svc flash.Sandboxes }

var _ sandboxconnect.SandboxServiceHandler = (*server)(nil)

func (s *server) StartSandbox(ctx context.Context, r *connect.Request[sandbox.StartRequest]) (*connect.Response[sandbox.StartResponse], error) {
	sb, err := api.Create(ctx, s.svc, flash.CreateOptions{
		Type: r.Msg.Type, Image: r.Msg.Image, Command: r.Msg.Command, MemoryMB: r.Msg.MemoryMb, CPUCores: r.Msg.CpuCores,
	})
	if err != nil {
		return nil, err
	}
	api.ExchangeOf(ctx).Sandbox = sb.ID
	return connect.NewResponse(&sandbox.StartResponse{Id: string(sb.ID)}), nil
}

func (s *server) StopSandbox(ctx context.Context, r *connect.Request[sandbox.StopRequest]) (*connect.Response[sandbox.StopResponse], error) {
	if err := s.svc.Delete(ctx, flash.ID(r.Msg.Id), flash.DeleteOptions{Keep: r.Msg.SkipCleanup}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&sandbox.StopResponse{}), nil
}

func (s *server) ExecCommand(ctx context.Context, r *connect.Request[sandbox.ExecRequest]) (*connect.Response[sandbox.ExecResponse], error) {
	res, err := s.svc.Exec(ctx, flash.ID(r.Msg.Id), flash.ExecOptions{Command: r.Msg.Command})
	if err != nil {
		return nil, err
	}
	stdout, stderr := texts(res.Stdout, res.Stderr)
	resp := connect.NewResponse(&sandbox.ExecResponse{Stdout: stdout, Stderr: stderr, ExitCode: exitCode(res)})
	noteEnding(resp.Header(), res)
	return resp, nil
}

func (s *server) GetStatus(ctx context.Context, r *connect.Request[sandbox.StatusRequest]) (*connect.Response[sandbox.StatusResponse], error) {
	sb, err := s.svc.Get(ctx, flash.ID(r.Msg.Id))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&sandbox.StatusResponse{Id: string(sb.ID), Status: string(sb.State)}), nil
}

func (s *server) GetMetrics(ctx context.Context, r *connect.Request[sandbox.MetricsRequest]) (*connect.Response[sandbox.MetricsResponse], error) {
	m, err := s.svc.Metrics(ctx, flash.ID(r.Msg.Id))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&sandbox.MetricsResponse{
		MemoryUsageBytes: m.MemoryUsageBytes, MemoryLimitBytes: m.MemoryLimitBytes, MemoryPercent: m.MemoryPercent,
		CpuPercent: m.CPUPercent, PidsCurrent: m.PidsCurrent, NetRxBytes: m.NetRxBytes, NetTxBytes: m.NetTxBytes,
		BlockReadBytes: m.BlockReadBytes, BlockWriteBytes: m.BlockWriteBytes,
	}), nil
}

func (s *server) SnapshotSandbox(ctx context.Context, r *connect.Request[sandbox.SnapshotRequest]) (*connect.Response[sandbox.SnapshotResponse], error) {
	sn, err := s.svc.Snapshot(ctx, flash.ID(r.Msg.Id))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&sandbox.SnapshotResponse{SnapshotPath: sn.SnapshotPath, MemFilePath: sn.MemFilePath}), nil
}

func (s *server) ResumeSandbox(ctx context.Context, r *connect.Request[sandbox.ResumeRequest]) (*connect.Response[sandbox.ResumeResponse], error) {
	if err := s.svc.Resume(ctx, flash.ID(r.Msg.Id)); err != nil {
		return nil, err
	}
	return connect.NewResponse(&sandbox.ResumeResponse{}), nil
}

func (s *server) RunPython(ctx context.Context, r *connect.Request[sandbox.RunPythonRequest]) (*connect.Response[sandbox.RunPythonResponse], error) {
	res, err := s.svc.RunPython(ctx, flash.ID(r.Msg.Id), flash.PythonOptions{Code: r.Msg.Code})
	if err != nil {
		return nil, err
	}
	var stderr []byte
	if res.Ending.ExitCode != 0 { // the only place where the reason can stand
		stderr = res.Stderr
	}
	out, trace := texts(res.Stdout, stderr)
	resp := connect.NewResponse(&sandbox.RunPythonResponse{Result: out + trace})
	noteEnding(resp.Header(), res)
	return resp, nil
}

func (s *server) GetPlatformInfo(ctx context.Context, r *connect.Request[sandbox.GetPlatformInfoRequest]) (*connect.Response[sandbox.GetPlatformInfoResponse], error) {
	info, err := s.svc.PlatformInfo(ctx, flash.ID(r.Msg.Id))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&sandbox.GetPlatformInfoResponse{Info: api.InfoOf(info).Info}), nil
}

func exitCode(res *flash.ExecResult) int32 {
	return int32(min(max(res.Ending.ExitCode, math.MinInt32), math.MaxInt32))
}

func noteEnding(h http.Header, res *flash.ExecResult) {
	h.Set(headerCause, string(res.Ending.Cause))
	h.Set(headerExitCode, strconv.Itoa(res.Ending.ExitCode))
	h.Set(headerDuration, strconv.FormatFloat(api.Milliseconds(res.Duration), 'f', 3, 64))
	h.Set(headerStdout, strconv.FormatInt(res.StdoutDropped, 10))
	h.Set(headerStderr, strconv.FormatInt(res.StderrDropped, 10))
}
