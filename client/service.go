package client

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// createBody is the request of Create. Zero values that mean something are sent.
type createBody struct {
	ID           flash.ID          `json:"id,omitempty"`
	Type         string            `json:"type"`
	Image        string            `json:"image"`
	Command      []string          `json:"command"`
	Env          map[string]string `json:"env,omitempty"`
	MemoryMB     int64             `json:"memory_mb"`
	CPUCores     float64           `json:"cpu_cores"`
	SnapshotPath string            `json:"snapshot_path,omitempty"`
	MemFilePath  string            `json:"mem_file_path,omitempty"`
	KernelImage  string            `json:"kernel_image,omitempty"`
	InitrdPath   string            `json:"initrd_path,omitempty"`
	Metadata     map[string]any    `json:"metadata,omitempty"`
}

// Create implements [flash.Service]. Numbers that JSON can't write are refused here.
func (c *Client) Create(ctx context.Context, o flash.CreateOptions) (*flash.Sandbox, error) {
	if math.IsNaN(o.CPUCores) || math.IsInf(o.CPUCores, 0) {
		return nil, flash.Errorf(flash.Invalid, "cpu_cores: is not a finite number")
	}
	command := o.Command
	if command == nil {
		command = []string{}
	}
	var w api.Sandbox
	err := c.call(ctx, http.MethodPost, "sandboxes", createBody{
		ID: o.ID, Type: o.Type, Image: o.Image, Command: command, Env: o.Env, MemoryMB: o.MemoryMB, CPUCores: o.CPUCores,
		SnapshotPath: o.SnapshotPath, MemFilePath: o.MemFilePath, KernelImage: o.KernelImage, InitrdPath: o.InitrdPath, Metadata: o.Metadata,
	}, &w)
	if err != nil {
		return nil, err
	}
	return w.Flash(), nil
}

// Get implements [flash.Service].
func (c *Client) Get(ctx context.Context, id flash.ID) (*flash.Sandbox, error) {
	var w api.Sandbox
	if err := c.sandbox(ctx, http.MethodGet, id, "", nil, &w); err != nil {
		return nil, err
	}
	return w.Flash(), nil
}

// Delete implements [flash.Service].
func (c *Client) Delete(ctx context.Context, id flash.ID, o flash.DeleteOptions) error {
	query := ""
	if o.Keep {
		query = "?cleanup=false"
	}
	return c.sandbox(ctx, http.MethodDelete, id, query, nil, nil)
}

type execBody struct {
	Command   []string `json:"command"`
	TimeoutMS int64    `json:"timeout_ms,omitempty"`
}

// Exec implements [flash.Service]. Output comes as text: bytes that are no
// UTF-8 arrive as U+FFFD.
func (c *Client) Exec(ctx context.Context, id flash.ID, o flash.ExecOptions) (*flash.ExecResult, error) {
	if o.Command == nil {
		o.Command = []string{}
	}
	var w api.Exec
	if err := c.sandbox(ctx, http.MethodPost, id, "/exec", execBody{Command: o.Command, TimeoutMS: milliseconds(o.Timeout)}, &w); err != nil {
		return nil, err
	}
	return w.Flash(), nil
}

type pythonBody struct {
	Code      string `json:"code"`
	TimeoutMS int64  `json:"timeout_ms,omitempty"`
}

// RunPython implements [flash.Service].
func (c *Client) RunPython(ctx context.Context, id flash.ID, o flash.PythonOptions) (*flash.ExecResult, error) {
	var w api.Exec
	if err := c.sandbox(ctx, http.MethodPost, id, "/run_python", pythonBody{Code: o.Code, TimeoutMS: milliseconds(o.Timeout)}, &w); err != nil {
		return nil, err
	}
	return w.Flash(), nil
}

// PlatformInfo implements [flash.Service].
func (c *Client) PlatformInfo(ctx context.Context, id flash.ID) (*flash.PlatformInfo, error) {
	var w api.Info
	if err := c.sandbox(ctx, http.MethodGet, id, "/platform_info", nil, &w); err != nil {
		return nil, err
	}
	var p flash.PlatformInfo
	if err := json.Unmarshal([]byte(w.Info), &p); err != nil {
		return nil, (&flash.Error{Code: flash.Internal, Reason: "bad_answer", Message: "the platform info in the answer is not JSON"}).WithCause(err)
	}
	return &p, nil
}

// Metrics implements [flash.Service].
func (c *Client) Metrics(ctx context.Context, id flash.ID) (*flash.Metrics, error) {
	var m flash.Metrics
	if err := c.sandbox(ctx, http.MethodGet, id, "/metrics", nil, &m); err != nil {
		return nil, err
	}
	return &m, nil
}

// Snapshot implements [flash.Service].
func (c *Client) Snapshot(ctx context.Context, id flash.ID) (*flash.Snapshot, error) {
	var w api.Snapshot
	if err := c.sandbox(ctx, http.MethodPost, id, "/snapshot", nil, &w); err != nil {
		return nil, err
	}
	return w.Flash(), nil
}

// Resume implements [flash.Service].
func (c *Client) Resume(ctx context.Context, id flash.ID) error {
	return c.sandbox(ctx, http.MethodPost, id, "/resume", nil, nil)
}

// List implements [flash.Service].
func (c *Client) List(ctx context.Context) ([]*flash.Sandbox, error) {
	var w api.Status
	if err := c.call(ctx, http.MethodGet, "status?sandboxes=true", nil, &w); err != nil {
		return nil, err
	}
	out := make([]*flash.Sandbox, len(w.Sandboxes))
	for i := range w.Sandboxes {
		out[i] = w.Sandboxes[i].Flash()
	}
	return out, nil
}

// Snapshots implements [flash.Service].
func (c *Client) Snapshots(ctx context.Context) ([]*flash.Snapshot, error) {
	var w api.Snapshots
	if err := c.call(ctx, http.MethodGet, "snapshots", nil, &w); err != nil {
		return nil, err
	}
	out := make([]*flash.Snapshot, len(w.Snapshots))
	for i := range w.Snapshots {
		out[i] = w.Snapshots[i].Flash()
	}
	return out, nil
}

// DeleteSnapshot implements [flash.Service].
func (c *Client) DeleteSnapshot(ctx context.Context, id flash.ID) error {
	if _, err := api.SnapshotID(string(id)); err != nil {
		return err
	}
	return c.call(ctx, http.MethodDelete, "snapshots/"+string(id), nil, nil)
}

// Images implements [flash.Service].
func (c *Client) Images(ctx context.Context) ([]flash.Image, error) {
	var w api.Images
	err := c.call(ctx, http.MethodGet, "images", nil, &w)
	return w.Images, err
}

// Backends implements [flash.Service].
func (c *Client) Backends(ctx context.Context) ([]flash.BackendStatus, error) {
	var w api.Backends
	err := c.call(ctx, http.MethodGet, "backends", nil, &w)
	return w.Backends, err
}

// sandbox calls a route below one sandbox. An id that can't be one is refused
// here with the server's own words, as it might name another route.
func (c *Client) sandbox(ctx context.Context, method string, id flash.ID, rest string, in, out any) error {
	if _, err := api.SandboxID(string(id)); err != nil {
		return err
	}
	return c.call(ctx, method, "sandboxes/"+string(id)+rest, in, out)
}

// milliseconds rounds away from zero, so that a deadline never becomes none
// and a negative one is still refused.
func milliseconds(d time.Duration) int64 {
	if d < 0 {
		return int64((d - time.Millisecond + 1) / time.Millisecond)
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
