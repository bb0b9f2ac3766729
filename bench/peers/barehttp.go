package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
)

// bareHTTP is bare behind an HTTP handler and a keep-alive connection: what
// running a command through an API costs when there is no sandbox.
type bareHTTP struct {
	bare
	server *http.Server
	client *http.Client
	url    string
}

type bareRequest struct {
	Command []string `json:"command,omitempty"`
	Python  string   `json:"python,omitempty"`
}

func (p *bareHTTP) Open(ctx context.Context) error {
	if err := p.bare.Open(ctx); err != nil {
		return err
	}
	var lc net.ListenConfig
	lis, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.url = "http://" + lis.Addr().String()
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: 10 * time.Second}
	p.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	go func() { _ = p.server.Serve(lis) }()
	return nil
}

func (p *bareHTTP) Close(context.Context) error {
	if p.server == nil {
		return nil
	}
	p.client.CloseIdleConnections()
	return p.server.Close()
}

func (p *bareHTTP) serve(w http.ResponseWriter, r *http.Request) {
	var req bareRequest
	var out Output
	err := json.NewDecoder(r.Body).Decode(&req)
	switch {
	case err != nil:
	case req.Python != "":
		out, err = p.bare.Python(r.Context(), req.Python)
	default:
		out, err = p.bare.Exec(r.Context(), req.Command...)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

func (p *bareHTTP) Create(context.Context, lab.Kind) (Box, error) { return p, nil }

func (p *bareHTTP) Exec(ctx context.Context, argv ...string) (Output, error) {
	return p.post(ctx, bareRequest{Command: argv})
}

func (p *bareHTTP) Python(ctx context.Context, code string) (Output, error) {
	return p.post(ctx, bareRequest{Python: code})
}

func (p *bareHTTP) post(ctx context.Context, in bareRequest) (out Output, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return out, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return out, fmt.Errorf("status %s", res.Status)
	}
	return out, json.NewDecoder(res.Body).Decode(&out)
}
