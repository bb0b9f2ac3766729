package gvisor

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/cgroup"
)

// Probe says whether this host can run sandboxes. The first time that all else
// is right it starts one, of an image with nothing in it. It also removes what
// could not be removed before.
func (b *Backend) Probe(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return flash.Errorf(flash.Unavailable, "gVisor needs root: the daemon runs as user %d", os.Geteuid())
	}
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return flash.Errorf(flash.Unavailable, "gVisor runs on amd64 and arm64 only, this host is %s", runtime.GOARCH)
	}
	have, err := cgroup.Controllers()
	if err != nil {
		return flash.Errorf(flash.Unavailable, "the host's cgroups can't be read").WithCause(err)
	}
	var missing []string
	for _, c := range []string{"memory", "cpu", "pids"} {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return flash.Errorf(flash.Unavailable, "the host lacks the cgroup controllers %s", strings.Join(missing, ", "))
	}
	b.mu.Lock()
	probed, closed := b.probed, b.closed
	b.mu.Unlock()
	if closed {
		return errClosed
	}
	b.removeLeftovers(ctx)
	if err := b.removeOldProbes(ctx); err != nil {
		b.log.Warn("what an earlier probe has left can't be removed", "err", err)
	}
	if probed {
		return nil
	}
	if err := b.tryStart(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return flash.Errorf(flash.Unavailable, "gVisor can't start a sandbox on this host: %v", err)
	}
	b.mu.Lock()
	b.probed = true
	b.mu.Unlock()
	return nil
}

// probePrefix begins the name of a probe's sandbox, and no id, see
// flash.ParseID.
const probePrefix = ".probe-"

// removeOldProbes removes what probes have left that were killed on the way.
func (b *Backend) removeOldProbes(ctx context.Context) error {
	names, err := b.names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !strings.HasPrefix(name, probePrefix) || b.isYoung(name) {
			continue
		}
		r, err := readRecord(filepath.Join(b.cfg.StateDir, name))
		if err != nil {
			r = record{} // the cgroup tells what is to be killed
		}
		if err := newMachine(b, flash.ID(name), r).remove(ctx); err != nil {
			return err
		}
	}
	return nil
}

// isYoung reports whether a probe may still be going on, perhaps in another
// process.
func (b *Backend) isYoung(name string) bool {
	fi, err := os.Lstat(filepath.Join(b.cfg.StateDir, name))
	return err == nil && time.Since(fi.ModTime()) < 2*launchTimeout
}

// tryStart starts a sandbox whose program does not exist. That gVisor gets as
// far as missing it proves all the rest.
func (b *Backend) tryStart(ctx context.Context) error {
	id := flash.ID(probePrefix + strings.ToLower(rand.Text()))
	dir := b.dir(id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	m := newMachine(b, id, record{
		Version: recordVersion, Args: []string{"/none"}, Dir: "/", Hostname: "probe",
		Rootfs: filepath.Join(dir, "empty"), Cgroup: b.cgroupOf(id), Boot: bootID(),
	})
	err := os.Mkdir(m.rec.Rootfs, 0o755)
	if err == nil {
		var l *launcher
		if l, err = b.launch(ctx, m, ""); err == nil {
			l.release()
		}
	}
	if derr := m.remove(context.WithoutCancel(ctx)); derr != nil {
		return derr
	}
	var miss *commandError
	if errors.As(err, &miss) {
		return nil
	}
	if err == nil {
		return errors.New("it started a program that does not exist")
	}
	return err
}
