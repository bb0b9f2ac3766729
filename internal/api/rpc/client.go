package rpc

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/proto/sandbox"
	"github.com/flash-sandbox/flash-sandbox/proto/sandbox/sandboxconnect"
)

// Client is a flash.Sandboxes over gRPC. What the wire can't say is refused as
// Unsupported, and a sandbox it returns has an id and a state only. It is safe
// for concurrent use.
type Client struct {
	rpc sandboxconnect.SandboxServiceClient
}

var _ flash.Sandboxes = (*Client)(nil)

// NewClient returns a client for the service below base, such as
// "http://localhost:50051" or "http://proxy/prefix". It speaks HTTP/2 without
// TLS for http URLs. A nil httpClient means one of its own.
func NewClient(base string, httpClient *http.Client) *Client {
	if httpClient == nil {
		httpClient = &http.Client{Transport: Transport()}
	}
	return &Client{sandboxconnect.NewSandboxServiceClient(httpClient, strings.TrimRight(base, "/"), connect.WithGRPC())}
}

// Transport returns a transport that speaks HTTP/2 with and without TLS.
func Transport() *http.Transport {
	t := &http.Transport{Protocols: new(http.Protocols), IdleConnTimeout: 90 * time.Second}
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// Create implements flash.Sandboxes.
func (c *Client) Create(ctx context.Context, o flash.CreateOptions) (*flash.Sandbox, error) {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"id", o.ID != ""}, {"env", len(o.Env) > 0}, {"snapshot_path", o.SnapshotPath != ""}, {"mem_file_path", o.MemFilePath != ""},
		{"kernel_image", o.KernelImage != ""}, {"initrd_path", o.InitrdPath != ""}, {"metadata", len(o.Metadata) > 0},
	} {
		if f.given {
			return nil, flash.Errorf(flash.Unsupported, "%s: can't be said over gRPC", f.name).WithRemediation("use the REST API")
		}
	}
	for _, s := range append([]string{o.Type, o.Image}, o.Command...) {
		if strings.ToValidUTF8(s, "") != s {
			return nil, flash.Errorf(flash.Invalid, "type, image and command must be valid UTF-8")
		}
	}
	resp, err := c.rpc.StartSandbox(ctx, connect.NewRequest(&sandbox.StartRequest{
		Type: o.Type, Image: o.Image, Command: o.Command, MemoryMb: o.MemoryMB, CpuCores: o.CPUCores,
	}))
	if err != nil {
		return nil, fromConnect(ctx, err)
	}
	return c.Get(ctx, flash.ID(resp.Msg.Id))
}

// Get implements flash.Sandboxes.
func (c *Client) Get(ctx context.Context, id flash.ID) (*flash.Sandbox, error) {
	resp, err := c.rpc.GetStatus(ctx, connect.NewRequest(&sandbox.StatusRequest{Id: string(id)}))
	if err != nil {
		return nil, fromConnect(ctx, err)
	}
	return &flash.Sandbox{ID: flash.ID(resp.Msg.Id), State: flash.State(resp.Msg.Status)}, nil
}

// Delete implements flash.Sandboxes.
func (c *Client) Delete(ctx context.Context, id flash.ID, o flash.DeleteOptions) error {
	_, err := c.rpc.StopSandbox(ctx, connect.NewRequest(&sandbox.StopRequest{Id: string(id), SkipCleanup: o.Keep}))
	return fromConnect(ctx, err)
}

// Exec implements flash.Sandboxes.
func (c *Client) Exec(ctx context.Context, id flash.ID, o flash.ExecOptions) (*flash.ExecResult, error) {
	if o.Timeout != 0 {
		return nil, flash.Errorf(flash.Unsupported, "timeout_ms: can't be said over gRPC").WithRemediation("give the context a deadline, or use the REST API")
	}
	resp, err := c.rpc.ExecCommand(ctx, connect.NewRequest(&sandbox.ExecRequest{Id: string(id), Command: o.Command}))
	if err != nil {
		return nil, fromConnect(ctx, err)
	}
	res := ending(resp.Header())
	res.Stdout, res.Stderr, res.Ending.ExitCode = []byte(resp.Msg.Stdout), []byte(resp.Msg.Stderr), int(resp.Msg.ExitCode)
	return res, nil
}

// RunPython implements flash.Sandboxes. Of code that failed, Stdout holds what
// it wrote to both streams.
func (c *Client) RunPython(ctx context.Context, id flash.ID, o flash.PythonOptions) (*flash.ExecResult, error) {
	if o.Timeout != 0 {
		return nil, flash.Errorf(flash.Unsupported, "timeout_ms: can't be said over gRPC").WithRemediation("give the context a deadline, or use the REST API")
	}
	resp, err := c.rpc.RunPython(ctx, connect.NewRequest(&sandbox.RunPythonRequest{Id: string(id), Code: o.Code}))
	if err != nil {
		return nil, fromConnect(ctx, err)
	}
	res := ending(resp.Header())
	res.Stdout = []byte(resp.Msg.Result)
	return res, nil
}

// PlatformInfo implements flash.Sandboxes.
func (c *Client) PlatformInfo(ctx context.Context, id flash.ID) (*flash.PlatformInfo, error) {
	resp, err := c.rpc.GetPlatformInfo(ctx, connect.NewRequest(&sandbox.GetPlatformInfoRequest{Id: string(id)}))
	if err != nil {
		return nil, fromConnect(ctx, err)
	}
	var p flash.PlatformInfo
	if err := json.Unmarshal([]byte(resp.Msg.Info), &p); err != nil {
		return nil, flash.Errorf(flash.Internal, "the platform info in the answer is not JSON").WithCause(err)
	}
	return &p, nil
}

// Metrics implements flash.Sandboxes.
func (c *Client) Metrics(ctx context.Context, id flash.ID) (*flash.Metrics, error) {
	resp, err := c.rpc.GetMetrics(ctx, connect.NewRequest(&sandbox.MetricsRequest{Id: string(id)}))
	if err != nil {
		return nil, fromConnect(ctx, err)
	}
	m := resp.Msg
	return &flash.Metrics{
		MemoryUsageBytes: m.MemoryUsageBytes, MemoryLimitBytes: m.MemoryLimitBytes, MemoryPercent: m.MemoryPercent,
		CPUPercent: m.CpuPercent, PidsCurrent: m.PidsCurrent, NetRxBytes: m.NetRxBytes, NetTxBytes: m.NetTxBytes,
		BlockReadBytes: m.BlockReadBytes, BlockWriteBytes: m.BlockWriteBytes,
	}, nil
}

// Snapshot implements flash.Sandboxes. The wire has the paths only.
func (c *Client) Snapshot(ctx context.Context, id flash.ID) (*flash.Snapshot, error) {
	resp, err := c.rpc.SnapshotSandbox(ctx, connect.NewRequest(&sandbox.SnapshotRequest{Id: string(id)}))
	if err != nil {
		return nil, fromConnect(ctx, err)
	}
	return &flash.Snapshot{
		SandboxID: id, SnapshotPath: resp.Msg.SnapshotPath, MemFilePath: resp.Msg.MemFilePath, Memory: resp.Msg.MemFilePath != "",
	}, nil
}

// Resume implements flash.Sandboxes.
func (c *Client) Resume(ctx context.Context, id flash.ID) error {
	_, err := c.rpc.ResumeSandbox(ctx, connect.NewRequest(&sandbox.ResumeRequest{Id: string(id)}))
	return fromConnect(ctx, err)
}

// ending reads what noteEnding wrote.
func ending(h http.Header) *flash.ExecResult {
	number := func(key string) int64 {
		n, err := strconv.ParseInt(h.Get(key), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	res := &flash.ExecResult{StdoutDropped: number(headerStdout), StderrDropped: number(headerStderr)}
	res.Ending = flash.Ending{Cause: flash.Cause(h.Get(headerCause)), ExitCode: int(number(headerExitCode))}
	if ms, err := strconv.ParseFloat(h.Get(headerDuration), 64); err == nil {
		res.Duration = time.Duration(ms * float64(time.Millisecond))
	}
	return res
}
