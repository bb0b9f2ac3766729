// Command fsbd is the Flash Sandbox daemon: it starts isolated sandboxes on
// interchangeable backends, runs commands in them, and serves one HTTP and one
// gRPC API. This package is wiring only: the one place that knows every
// adapter. Settings are described in docs/CONFIG.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/flash-sandbox/flash-sandbox/internal/backend/gvisor"
	"github.com/flash-sandbox/flash-sandbox/internal/config"
)

// version is set by the Makefile.
var version = "dev"

func main() {
	gvisor.RunIfReexec() // fsbd is also the runsc that its gVisor sandboxes run on
	os.Exit(run())
}

func run() int {
	res, err := config.Load(os.Args[1:], os.Environ(), os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "fsbd: the settings are wrong:\n%v\n", err)
		return 2
	case res.Version:
		fmt.Println("fsbd", version)
		return 0
	case res.Check:
		if err := res.Print(os.Stdout); err != nil {
			return 1
		}
		return 0
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &daemon{config: res.Config, warnings: res.Warnings, version: version, log: newLogger(res.Config, os.Stderr)}
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := d.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "fsbd: %v\n", err)
		return 1
	}
	return 0
}
