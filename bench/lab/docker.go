package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Engine is a Docker engine that has the images.
type Engine struct {
	Host    string // as DOCKER_HOST
	Version string
	images  string // what references begin with
}

// Image returns the reference of an image, as the engine and ours pull it.
func (e *Engine) Image(kind Kind) string { return e.images + string(kind) + ":latest" }

// Docker starts a private engine and has it pull the images.
func (l *Lab) Docker(ctx context.Context) (*Engine, error) {
	return l.docker.get(func() (*Engine, error) { return l.startDocker(ctx) })
}

func (l *Lab) startDocker(ctx context.Context) (*Engine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a private Docker engine needs root")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, errors.New("dockerd is not installed")
	}
	reg, err := l.Registry(ctx)
	if err != nil {
		return nil, err
	}
	l.Logf("starting a private Docker engine")
	script, dir := filepath.Join(l.repo, "test/env/dockerd.sh"), filepath.Join(l.dir, "d")
	l.onClose("dockerd", func(ctx context.Context) error {
		_, err := l.run(ctx, script, "stop", dir)
		return err
	})
	host := "unix://" + filepath.Join(dir, "d.sock")
	if _, err := l.run(ctx, script, "start", dir, "--insecure-registry="+reg.Addr()); err != nil {
		return nil, err
	}
	e := &Engine{Host: host, images: reg.Addr() + "/bench/"}
	api := engineAPI(filepath.Join(dir, "d.sock"))
	defer api.CloseIdleConnections()
	for _, kind := range Kinds {
		if err := pull(ctx, api, e.Image(kind)); err != nil {
			return nil, err
		}
	}
	var version struct{ Version string }
	err = call(ctx, api, http.MethodGet, "/version", func(r io.Reader) error { return json.NewDecoder(r).Decode(&version) })
	if err != nil {
		return nil, err
	}
	e.Version = version.Version
	return e, nil
}

func engineAPI(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
}

func call(ctx context.Context, api *http.Client, method, path string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	res, err := api.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	}
	return read(res.Body)
}

// pull has the engine pull an image. Its answer is progress, a JSON object a
// line, and the last one tells of an error.
func pull(ctx context.Context, api *http.Client, ref string) error {
	colon := strings.LastIndexByte(ref, ':')
	query := url.Values{"fromImage": {ref[:colon]}, "tag": {ref[colon+1:]}}.Encode()
	return call(ctx, api, http.MethodPost, "/images/create?"+query, func(r io.Reader) error {
		progress, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		lines := bytes.Split(bytes.TrimSpace(progress), []byte("\n"))
		var last struct{ Error string }
		if err := json.Unmarshal(lines[len(lines)-1], &last); err != nil {
			return err
		}
		if last.Error != "" {
			return fmt.Errorf("pull %s: %s", ref, last.Error)
		}
		return nil
	})
}
