package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/client"
)

const (
	defaultAddress = "localhost:8080"
	defaultTimeout = 30 * time.Second
	cleanupTimeout = 30 * time.Second
)

// env is what fsb takes from around it.
type env struct {
	Get            func(name string) string // environment variables
	Stdout, Stderr io.Writer
	Connect        func(address, apiKey string) (flash.Service, error)
}

func connect(address, apiKey string) (flash.Service, error) {
	return client.New(address, client.Options{APIKey: apiKey, UserAgent: "fsb/" + versionText()})
}

// app carries the global options to the commands.
type app struct {
	env
	address string
	timeout seconds
	json    bool

	code int // exit code of a command that ran and failed
}

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, e env) int {
	a := &app{env: e}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil {
		return a.fail(ctx, cmd, err)
	}
	return a.code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "fsb",
		Short: "Run commands in sandboxes",
		Long: `fsb runs commands in sandboxes of a Flash Sandbox daemon, fsbd.

Exit codes: 0 success; the command's own code for run and exec; 2 wrong usage
or a refused request; 3 no connection or no answer in time; 4 no such sandbox.`,
		Example: `  fsb run alpine:latest -- echo hello
  id=$(fsb create alpine:latest -- sleep 600)
  fsb exec $id -- uname -a
  fsb stop $id`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	address := a.Get("FLASH_SANDBOX_ADDR")
	if address == "" {
		address = defaultAddress
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.address, "address", "H", address, "daemon as host, host:port, host:port/prefix or URL; $FLASH_SANDBOX_ADDR")
	flags.Lookup("address").DefValue = defaultAddress
	flags.Var(&a.timeout, "timeout", "time one request may take, in seconds or as 1m30s (default 30s; none for what takes its time: create, run, exec, snapshot, resume)")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(
		a.runCommand(), a.createCommand(), a.execCommand(), a.psCommand(), a.inspectCommand(), a.metricsCommand(),
		a.snapshotCommand(), a.resumeCommand(), a.stopCommand(), a.snapshotsCommand(), a.rmSnapshotCommand(),
		a.imagesCommand(), a.backendsCommand(), a.versionCommand(),
	)
	return root
}

// service returns the daemon, without speaking to it yet.
func (a *app) service() (flash.Service, error) { return a.Connect(a.address, a.Get("FLASH_API_KEY")) }

// brief bounds a request that is answered at once.
func (a *app) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout == 0 {
		return context.WithTimeout(ctx, defaultTimeout)
	}
	return context.WithTimeout(ctx, time.Duration(a.timeout))
}

// long bounds a request that takes its time, only if asked to.
func (a *app) long(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(a.timeout))
}

// seconds is a flag's duration: a number of seconds, or Go's notation.
type seconds time.Duration

func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, numErr := strconv.ParseFloat(text, 64); numErr == nil {
		d, err = time.Duration(n*float64(time.Second)), nil
	}
	if err != nil || d <= 0 || d > 365*24*time.Hour {
		return fmt.Errorf("give a positive number of seconds, or a duration such as 1m30s")
	}
	*s = seconds(d)
	return nil
}

func (s *seconds) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

func (s *seconds) Type() string { return "time" }
