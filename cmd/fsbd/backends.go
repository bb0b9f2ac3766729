package main

import (
	"log/slog"
	"path/filepath"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/docker"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/gvisor"
	"github.com/flash-sandbox/flash-sandbox/internal/config"
)

// backends returns every backend of this binary, best first: the order in
// which a sandbox without a type gets one.
func backends(c config.Config, owner string, log *slog.Logger) ([]backend.Backend, error) {
	embedded, err := gvisor.New(gvisor.Config{StateDir: filepath.Join(c.DataDir, "gvisor"), Logger: log})
	if err != nil {
		return nil, err
	}
	list := []backend.Backend{embedded}
	if c.DockerHost == "off" {
		return list, nil
	}
	for _, runtime := range append([]string{""}, c.DockerRuntimes...) {
		list = append(list, docker.New(docker.Config{Host: c.DockerHost, Runtime: runtime, Owner: owner, Logger: log}))
	}
	return list, nil
}
