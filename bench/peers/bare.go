package peers

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
)

// bare runs the image's own files as processes of the host. Its echo and true
// are the static busybox; its Python runs with the image as root directory.
type bare struct {
	lab    *lab.Lab
	rootfs string
}

func (*bare) Boxless() {}

func (p *bare) Open(ctx context.Context) (err error) {
	p.rootfs, err = p.lab.Rootfs(ctx, lab.Python)
	return err
}

func (p *bare) Close(context.Context) error { return nil }

func (p *bare) Create(context.Context, lab.Kind) (Box, error) { return p, nil }

func (p *bare) Delete(context.Context) error { return nil }

func (p *bare) Exec(ctx context.Context, argv ...string) (Output, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.rootfs, "bin/busybox"))
	cmd.Args = argv // busybox goes by the name it is called
	cmd.Env = []string{}
	return capture(cmd)
}

func (p *bare) Python(ctx context.Context, code string) (Output, error) {
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "-c", code)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: p.rootfs}
	return capture(cmd)
}
