package rest

import (
	"context"
	"net/http"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// createBody is the request of create. The later members are those that
// clients of later versions send only when their caller asked for them.
type createBody struct {
	ID             text      `json:"id" doc:"Chosen by the caller: letters, digits, - and _. Default: a fresh one."`
	Type           text      `json:"type" doc:"Backend: gvisor, docker, ...; empty, auto or any: the best one available."`
	Image          text      `json:"image" doc:"Registry reference, oci:DIR, oci-archive:FILE or docker-archive:FILE."`
	Command        argv      `json:"command" doc:"Replaces the image's command. Empty: the image's own."`
	Env            stringMap `json:"env" doc:"Added to the image's environment."`
	MemoryMB       integer   `json:"memory_mb" doc:"Memory limit in MiB. 0: the daemon's default."`
	CPUCores       number    `json:"cpu_cores" doc:"CPU limit in cores. 0: unbounded."`
	KernelImage    text      `json:"kernel_image" doc:"Firecracker only."`
	InitrdPath     text      `json:"initrd_path" doc:"Firecracker only."`
	SnapshotPath   text      `json:"snapshot_path" doc:"As a snapshot gave it: restore that snapshot. The image may then be empty."`
	MemFilePath    text      `json:"mem_file_path" doc:"As a snapshot gave it."`
	SnapshotNodeID text      `json:"snapshot_node_id" doc:"The node_id of a snapshot: names it instead of, or besides, its paths."`
	Metadata       object    `json:"metadata" doc:"Kept and returned; means nothing to the daemon."`

	MemoryRequestMB integer `json:"memory_request_mb" doc:"Taken if 0 or equal to memory_mb."`
	CPURequestCores number  `json:"cpu_request_cores" doc:"Taken if 0 or equal to cpu_cores."`

	Template     later   `json:"template"`
	GPU          later   `json:"gpu"`
	SnapshotOpts later   `json:"snapshot_opts"`
	BindMounts   later   `json:"bind_mounts"`
	ExposePorts  later   `json:"expose_ports"`
	TTLSeconds   later   `json:"ttl_seconds"`
	Ephemeral    later   `json:"ephemeral"`
	CPUPolicy    later   `json:"cpu_policy"`
	Setup        later   `json:"setup"`
	VCPUCount    later   `json:"vcpu_count"`
	OperationID  ignored `json:"operation_id"`
}

func (b *createBody) options() (flash.CreateOptions, error) {
	o := flash.CreateOptions{
		ID: flash.ID(b.ID), Type: string(b.Type), Image: string(b.Image), Command: b.Command, Env: b.Env,
		MemoryMB: int64(b.MemoryMB), CPUCores: float64(b.CPUCores),
		SnapshotPath: string(b.SnapshotPath), MemFilePath: string(b.MemFilePath),
		KernelImage: string(b.KernelImage), InitrdPath: string(b.InitrdPath), Metadata: b.Metadata,
	}
	switch {
	case b.MemoryRequestMB != 0 && b.MemoryRequestMB != b.MemoryMB:
		return o, flash.Errorf(flash.Unsupported, "memory_request_mb: a request apart from the limit is not supported by this version")
	case b.CPURequestCores != 0 && b.CPURequestCores != b.CPUCores:
		return o, flash.Errorf(flash.Unsupported, "cpu_request_cores: a request apart from the limit is not supported by this version")
	}
	return o, nil
}

func (h *handler) create(w http.ResponseWriter, r *http.Request) error {
	var b createBody
	if err := readBody(w, r, &b); err != nil {
		return err
	}
	o, err := b.options()
	if err != nil {
		return err
	}
	if b.SnapshotNodeID != "" {
		if err := h.findSnapshot(r.Context(), string(b.SnapshotNodeID), &o); err != nil {
			return err
		}
	}
	sb, err := api.Create(r.Context(), h.svc, o)
	if err != nil {
		return err
	}
	api.ExchangeOf(r.Context()).Sandbox = sb.ID
	// Relative, so that it also holds behind a proxy that strips a prefix.
	w.Header().Set("Location", "sandboxes/"+string(sb.ID))
	return writeJSON(w, http.StatusCreated, api.SandboxOf(sb, h.o.Node))
}

// findSnapshot fills in the paths of the snapshot named by snapshot_node_id,
// or checks that the paths given are its own.
func (h *handler) findSnapshot(ctx context.Context, nodeID string, o *flash.CreateOptions) error {
	if nodeID == h.o.Node && o.SnapshotPath != "" {
		return nil
	}
	list, err := h.svc.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if string(s.ID) != nodeID {
			continue
		}
		if o.SnapshotPath == "" {
			o.SnapshotPath, o.MemFilePath = s.SnapshotPath, s.MemFilePath
		}
		if o.SnapshotPath != s.SnapshotPath {
			return flash.Errorf(flash.Invalid, "snapshot_node_id: names another snapshot than snapshot_path does")
		}
		return nil
	}
	return flash.Errorf(flash.Invalid, "snapshot_node_id: there is no snapshot %s", clip(nodeID))
}

func (h *handler) get(w http.ResponseWriter, r *http.Request) error {
	id, err := sandboxID(r)
	if err != nil {
		return err
	}
	sb, err := h.svc.Get(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, api.SandboxOf(sb, h.o.Node))
}

func (h *handler) remove(w http.ResponseWriter, r *http.Request) error {
	id, err := sandboxID(r)
	if err != nil {
		return err
	}
	cleanup, err := boolean(r, "cleanup", true)
	if err != nil {
		return err
	}
	if err := skipBody(w, r); err != nil {
		return err
	}
	if err := h.svc.Delete(r.Context(), id, flash.DeleteOptions{Keep: !cleanup}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// execBody is the request of exec.
type execBody struct {
	Command   argv    `json:"command" doc:"Argument vector, run without a shell; or one string for a shell."`
	Script    text    `json:"script" doc:"Run by sh -c, instead of command."`
	TimeoutMS integer `json:"timeout_ms" doc:"The command is killed after this long. 0: no deadline."`
	Metadata  ignored `json:"metadata"`
}

func (h *handler) exec(w http.ResponseWriter, r *http.Request) error {
	id, err := sandboxID(r)
	if err != nil {
		return err
	}
	if streamOnly(r.Header.Values("Accept")) {
		return flash.Errorf(flash.Unsupported, "Accept: text/event-stream is not supported by this version").
			WithRemediation("accept application/json, and the answer comes when the command has ended")
	}
	var b execBody
	if err := readBody(w, r, &b); err != nil {
		return err
	}
	timeout, err := duration("timeout_ms", b.TimeoutMS)
	if err != nil {
		return err
	}
	if b.Script != "" {
		if len(b.Command) > 0 {
			return flash.Errorf(flash.Invalid, "script: is given besides command; give one of them")
		}
		b.Command = shell(string(b.Script))
	}
	res, err := h.svc.Exec(r.Context(), id, flash.ExecOptions{Command: b.Command, Timeout: timeout})
	if err != nil {
		return err
	}
	return writeExec(w, res, false)
}

// streamOnly reports whether a client takes nothing but an event stream.
func streamOnly(accept []string) bool {
	stream := false
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			kind, _, _ := strings.Cut(part, ";")
			switch strings.ToLower(strings.TrimSpace(kind)) {
			case "text/event-stream":
				stream = true
			case "*/*", "application/*", "application/json":
				return false
			}
		}
	}
	return stream
}

// pythonBody is the request of run_python.
type pythonBody struct {
	Code      text    `json:"code" doc:"At most 128 KiB."`
	TimeoutMS integer `json:"timeout_ms" doc:"The interpreter is killed after this long. 0: no deadline."`
	Metadata  ignored `json:"metadata"`
}

func (h *handler) python(w http.ResponseWriter, r *http.Request) error {
	id, err := sandboxID(r)
	if err != nil {
		return err
	}
	var b pythonBody
	if err := readBody(w, r, &b); err != nil {
		return err
	}
	timeout, err := duration("timeout_ms", b.TimeoutMS)
	if err != nil {
		return err
	}
	res, err := h.svc.RunPython(r.Context(), id, flash.PythonOptions{Code: string(b.Code), Timeout: timeout})
	if err != nil {
		return err
	}
	return writeExec(w, res, true)
}

func (h *handler) platformInfo(w http.ResponseWriter, r *http.Request) error {
	id, err := sandboxID(r)
	if err != nil {
		return err
	}
	info, err := h.svc.PlatformInfo(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, api.InfoOf(info))
}

func (h *handler) metrics(w http.ResponseWriter, r *http.Request) error {
	id, err := sandboxID(r)
	if err != nil {
		return err
	}
	m, err := h.svc.Metrics(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, api.MetricsOf(m))
}

func (h *handler) snapshot(w http.ResponseWriter, r *http.Request) error {
	id, err := sandboxID(r)
	if err != nil {
		return err
	}
	if err := skipBody(w, r); err != nil {
		return err
	}
	s, err := h.svc.Snapshot(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, api.SnapshotOf(s))
}

func (h *handler) resume(w http.ResponseWriter, r *http.Request) error {
	id, err := sandboxID(r)
	if err != nil {
		return err
	}
	if err := skipBody(w, r); err != nil {
		return err
	}
	if err := h.svc.Resume(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sandboxID returns the checked id in a request's path.
func sandboxID(r *http.Request) (flash.ID, error) {
	id, err := api.SandboxID(r.PathValue("id"))
	if err == nil {
		api.ExchangeOf(r.Context()).Sandbox = id
	}
	return id, err
}

// boolean reads a query parameter.
func boolean(r *http.Request, name string, fallback bool) (bool, error) {
	switch v := r.URL.Query().Get(name); strings.ToLower(v) {
	case "":
		return fallback, nil
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	default:
		return false, flash.Errorf(flash.Invalid, "%s: is %s; give true or false", name, clip(v))
	}
}

// duration turns milliseconds into a duration.
func duration(name string, ms integer) (time.Duration, error) {
	const most = integer(1<<63-1) / integer(time.Millisecond)
	if ms > most || ms < -most {
		return 0, flash.Errorf(flash.Invalid, "%s: is out of range", name)
	}
	return time.Duration(ms) * time.Millisecond, nil
}
