package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
)

// dockerCLI is Docker by its command line. Containers have no network, as
// that is quickest and what our own sandboxes get.
type dockerCLI struct {
	lab    *lab.Lab
	engine *lab.Engine
}

func (p *dockerCLI) Open(ctx context.Context) (err error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return fmt.Errorf("the docker program is not installed")
	}
	p.engine, err = p.lab.Docker(ctx)
	return err
}

// Close leaves containers to the end of the engine, which is the benchmark's own.
func (p *dockerCLI) Close(context.Context) error { return nil }

func (p *dockerCLI) docker(ctx context.Context, args ...string) (Output, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+p.engine.Host, "DOCKER_CONFIG="+p.lab.Dir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return capture(cmd)
}

func (p *dockerCLI) Create(ctx context.Context, kind lab.Kind) (Box, error) {
	args := append([]string{"run", "-d", "--network=none", fmt.Sprintf("--memory=%dm", memoryMB), p.engine.Image(kind)}, idle...)
	out, err := must(p.docker(ctx, args...))
	if err != nil {
		return nil, err
	}
	return dockerBox{p, strings.TrimSpace(out.Stdout)}, nil
}

type dockerBox struct {
	p  *dockerCLI
	id string
}

func (b dockerBox) Exec(ctx context.Context, argv ...string) (Output, error) {
	return b.p.docker(ctx, append([]string{"exec", b.id}, argv...)...)
}

func (b dockerBox) Python(ctx context.Context, code string) (Output, error) {
	return b.Exec(ctx, append(python[:len(python):len(python)], code)...)
}

func (b dockerBox) Delete(ctx context.Context) error {
	_, err := must(b.p.docker(ctx, "rm", "-f", b.id))
	return err
}
