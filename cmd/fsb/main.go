// Command fsb is the command line client of a Flash Sandbox daemon. It speaks
// to fsbd over HTTP through package client and knows nothing of how sandboxes
// are made.
//
//	fsb run alpine:latest -- echo hello
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends fsb at once
	os.Exit(run(ctx, os.Args[1:], env{Get: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr, Connect: connect}))
}
