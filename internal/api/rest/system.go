package rest

import (
	"net/http"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// statusWord is the reply of the probes.
type statusWord struct {
	Status string `json:"status"`
}

func (h *handler) health(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, statusWord{"ok"})
}

func (h *handler) ready(w http.ResponseWriter, r *http.Request) error {
	if h.o.Ready != nil {
		if err := h.o.Ready(r.Context()); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, statusWord{"ready"})
}

func (h *handler) openAPI(w http.ResponseWriter, _ *http.Request) error {
	write(w, http.StatusOK, "application/json", h.spec)
	return nil
}

// status tells of this daemon in the words made for many nodes: it is one.
func (h *handler) status(w http.ResponseWriter, r *http.Request) error {
	withList, err := boolean(r, "sandboxes", false)
	if err != nil {
		return err
	}
	list, err := h.svc.List(r.Context())
	if err != nil {
		return err
	}
	backends, err := h.svc.Backends(r.Context())
	if err != nil {
		return err
	}
	node := api.Node{ID: h.o.Node, Status: "ready", Available: true, BackendTypes: []string{}, LastHeartbeatAgo: "0s"}
	if h.o.Ready != nil {
		if err := h.o.Ready(r.Context()); err != nil {
			node.Status, node.Available = "unavailable", false
			if flash.AsError(err).Reason == "draining" {
				node.Status = "draining"
			}
		}
	}
	for _, b := range backends {
		if b.Available {
			node.BackendTypes = append(node.BackendTypes, b.Name)
		}
	}
	reply := api.Status{NodeCount: 1, SandboxCount: len(list)}
	if withList {
		reply.Sandboxes = make([]api.Sandbox, 0, len(list))
	}
	for _, sb := range list {
		node.Lifecycle.Add(sb.State)
		if withList {
			reply.Sandboxes = append(reply.Sandboxes, api.SandboxOf(sb, h.o.Node))
		}
	}
	node.RunningCount = node.Lifecycle.Running
	reply.Lifecycle = node.Lifecycle
	if node.Available {
		reply.AvailableNodeCount = 1
	} else {
		reply.UnavailableNodeCount = 1
	}
	reply.Nodes = []api.Node{node}
	return writeJSON(w, http.StatusOK, &reply)
}

func (h *handler) snapshots(w http.ResponseWriter, r *http.Request) error {
	list, err := h.svc.Snapshots(r.Context())
	if err != nil {
		return err
	}
	reply := api.Snapshots{Snapshots: make([]api.Snapshot, len(list))}
	for i, s := range list {
		reply.Snapshots[i] = api.SnapshotOf(s)
	}
	return writeJSON(w, http.StatusOK, &reply)
}

func (h *handler) removeSnapshot(w http.ResponseWriter, r *http.Request) error {
	id, err := api.SnapshotID(r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := skipBody(w, r); err != nil {
		return err
	}
	if err := h.svc.DeleteSnapshot(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handler) images(w http.ResponseWriter, r *http.Request) error {
	list, err := h.svc.Images(r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []flash.Image{}
	}
	return writeJSON(w, http.StatusOK, api.Images{Images: list})
}

func (h *handler) backends(w http.ResponseWriter, r *http.Request) error {
	list, err := h.svc.Backends(r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []flash.BackendStatus{}
	}
	for i := range list {
		if list[i].Capabilities == nil {
			list[i].Capabilities = []string{}
		}
	}
	return writeJSON(w, http.StatusOK, api.Backends{Backends: list})
}
