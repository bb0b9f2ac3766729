// Command registry serves OCI image layouts as an image registry on loopback,
// for tests and the demo.
//
//	registry [-addr 127.0.0.1:0] library/alpine:latest=DIR ...
//
// It prints its address, such as http://127.0.0.1:41234, on one line once it
// serves, and ends on SIGTERM or SIGINT.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func run() error {
	var opts registry.Options
	flag.StringVar(&opts.Addr, "addr", "127.0.0.1:0", "address to listen on; port 0 picks a free one")
	flag.StringVar((*string)(&opts.Auth), "auth", "", `how clients prove who they are: "basic", "token", or "" for anyone`)
	flag.StringVar(&opts.User, "user", "", "user name, with -auth")
	flag.StringVar(&opts.Password, "password", "", "password, with -auth")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: registry [flags] REPOSITORY:TAG=LAYOUT_DIR ...")
		flag.PrintDefaults()
	}
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s, err := registry.Open(opts)
	if err != nil {
		return err
	}
	for _, arg := range flag.Args() {
		name, dir, ok := strings.Cut(arg, "=")
		if !ok {
			_ = s.Close()
			return fmt.Errorf("argument %q is not REPOSITORY:TAG=LAYOUT_DIR", arg)
		}
		if err := s.PutLayout(name, dir); err != nil {
			_ = s.Close()
			return err
		}
	}
	fmt.Println(s.URL())
	<-ctx.Done()
	return s.Close()
}
