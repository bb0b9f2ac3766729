package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/flash-sandbox/flash-sandbox/internal/config"
	"github.com/flash-sandbox/flash-sandbox/internal/image"
	"github.com/flash-sandbox/flash-sandbox/internal/manager"
	"github.com/flash-sandbox/flash-sandbox/internal/server"
	"github.com/flash-sandbox/flash-sandbox/internal/store/sqlite"
)

// daemon is one run of fsbd.
type daemon struct {
	config   config.Config
	warnings []string
	version  string
	log      *slog.Logger
}

// run starts everything and returns when ctx has ended and requests under way
// are answered. Sandboxes go on running; the next run adopts them.
func (d *daemon) run(ctx context.Context) (err error) {
	c := d.config
	for _, w := range d.warnings {
		d.log.Warn(w)
	}
	lock, err := lockDataDir(c.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	// A folder that was used before and has no records has lost them.
	usedBefore, hasRecords := exists(filepath.Join(c.DataDir, "owner")), exists(filepath.Join(c.DataDir, "state.db"))
	owner, err := ownerID(c.DataDir)
	if err != nil {
		return dataDirError(c.DataDir, err)
	}
	snapshotDir := filepath.Join(c.DataDir, "snapshots")
	if err := os.MkdirAll(snapshotDir, 0o700); err != nil {
		return dataDirError(c.DataDir, err)
	}
	records, err := sqlite.Open(filepath.Join(c.DataDir, "state.db"), sqlite.Options{Log: d.log})
	if err != nil {
		return fmt.Errorf("open the records: %w", err)
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	imageConfig, err := d.imageConfig()
	if err != nil {
		return err
	}
	images, err := image.Open(imageConfig)
	if err != nil {
		return fmt.Errorf("open the image cache: %w", err)
	}
	defer func() { err = errors.Join(err, images.Close()) }()

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	list, err := backends(c, owner, d.log)
	if err != nil {
		return err
	}
	m, err := manager.New(manager.Options{
		Backends: list, Images: imageStore{images}, Store: records,
		SnapshotDir: snapshotDir, Logger: d.log, Registerer: registry,
		OutputLimit: int(c.OutputLimit), DefaultMemoryMB: c.DefaultMemoryMB, PidsLimit: c.PidsLimit,
		AdoptUnknown: records.Recovered() || usedBefore && !hasRecords,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()

	srv, err := server.New(server.Options{
		HTTPAddr: c.HTTPAddr, GRPCAddr: c.GRPCAddr, BasePaths: c.BasePath,
		Service: m, Version: d.version, Node: node(), Logger: d.log, Registry: registry, DrainTimeout: c.DrainTimeout.Duration,
	})
	if err != nil {
		return err
	}
	// A port that is taken shows before anything is touched; requests wait in
	// the listener's queue until records and machines agree.
	if err := srv.Open(); err != nil {
		return err
	}
	if err := m.Reconcile(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = nil // told to stop while it starts, which is no failure
		}
		return errors.Join(err, srv.Close())
	}
	d.log.Info("fsbd is ready", "version", d.version, "http", srv.HTTPAddr(), "grpc", srv.GRPCAddr(), "data", c.DataDir)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Run(ctx) })
	g.Go(func() error { return m.Run(ctx) })
	return g.Wait()
}

// node is the name that replies give this machine: its host name.
func node() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "local"
	}
	return name
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
