// Command bench measures how fast sandboxes of ours are beside other ways of
// running a command in one, all in one run on one machine, and prints ratios.
// Milliseconds change with the machine and with the hour; ratios of things
// measured side by side hold.
//
//	go run ./bench [-quick] [-peers a,b] [-rounds 7] [-out FILE]
//
// Every round gives each peer a turn, in an order drawn anew. A round counts
// only if bare processes, started all through it, took at most twice as long
// as in the best round; else it is repeated. The output of every command is
// checked. What can't run here is skipped by name, with the reason.
//
// gVisor can't run a program again as a sandbox that needs shared libraries, so
// the program has itself built with CGO_ENABLED=0 if it was not.
//
// It needs root for anything but bare processes, and Docker for the peers that
// have it in their name: it starts an engine of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/peers"
	"github.com/flash-sandbox/flash-sandbox/bench/report"
	"github.com/flash-sandbox/flash-sandbox/internal/backend/gvisor"
)

func main() {
	gvisor.RunIfReexec()
	err := static()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: can't be built without shared libraries:", err)
	}
	if len(os.Args) == 2 && os.Args[1] == lab.EmptyCommand {
		err = lab.ServeEmpty()
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// static makes this process one of the same program without shared libraries.
// It returns if there is nothing to do, or no way to do it.
func static() error {
	if dir := os.Getenv(builtIn); dir != "" {
		_ = os.RemoveAll(dir) // a running program needs no name
		return os.Unsetenv(builtIn)
	}
	if !peers.Dynamic {
		return nil
	}
	dir, err := os.MkdirTemp("", "fsb-bench-build-")
	if err != nil {
		return err
	}
	program := filepath.Join(dir, "bench")
	build := exec.Command("go", "build", "-o", program, "github.com/flash-sandbox/flash-sandbox/bench")
	build.Env, build.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	err = build.Run()
	if err == nil {
		err = syscall.Exec(program, os.Args, append(os.Environ(), builtIn+"="+dir))
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// builtIn is the environment variable that names the directory of a program
// which static has built.
const builtIn = "FSB_BENCH_BUILT_IN"

// options are the flags.
type options struct {
	plan
	peers   []string
	seed    uint64
	out     string
	addr    string
	program string
	profile string
}

func parse() (options, error) {
	var o options
	names := flag.String("peers", "", "peers that take part, separated by commas; empty: all ("+strings.Join(peers.Names, ", ")+")")
	flag.IntVar(&o.rounds, "rounds", 7, "rounds that have to count")
	flag.IntVar(&o.creates, "ncreate", 3, "sandboxes per peer and round")
	flag.IntVar(&o.execs, "nexec", 30, "commands per peer and round")
	flag.IntVar(&o.pythons, "npy", 5, "runs of Python per peer and round")
	flag.IntVar(&o.bursts, "bursts", 3, "bursts per peer that have to count")
	flag.IntVar(&o.leaks, "nleak", 20, "sandboxes that come and go while fsbd's descriptors are counted")
	flag.Uint64Var(&o.seed, "seed", 0, "seed of the order; 0: from the clock")
	flag.StringVar(&o.out, "out", "", "file for all samples, as JSON")
	flag.StringVar(&o.addr, "addr", "", "address of an fsbd that runs already; empty: one is started")
	flag.StringVar(&o.program, "fsbd", "", "fsbd to start, also used as runsc; empty: bin/fsbd")
	flag.StringVar(&o.profile, "cpuprofile", "", "file for a CPU profile of this process; of use with the peers bare-http and gvisor-inproc")
	quick := flag.Bool("quick", false, "one small round, to see that all works")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	o.burstSize, o.burstWidth, o.getTime, o.factor = 20, 8, time.Second, 2
	if *quick {
		o.rounds, o.creates, o.execs, o.pythons, o.bursts, o.leaks = 1, 1, 5, 1, 1, 4
		o.burstSize, o.burstWidth, o.getTime = 4, 2, 300*time.Millisecond
	}
	for name, n := range map[string]int{"rounds": o.rounds, "ncreate": o.creates, "nexec": o.execs, "npy": o.pythons, "bursts": o.bursts, "nleak": o.leaks} {
		if n < 0 || name == "rounds" && n == 0 {
			return o, fmt.Errorf("-%s: %d is too small", name, n)
		}
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	o.peers = peers.Names
	if *names != "" {
		o.peers = strings.Split(*names, ",")
	}
	return o, nil
}

func run() (err error) {
	o, err := parse()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop() // while we clean up, signals are still ours
	// A reader of our output that has left must not end us before that either.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	l, err := lab.New(lab.Options{
		Addr: o.addr, Program: o.program, Docker: slices.Contains(o.peers, peers.OursDocker), Log: os.Stderr,
	})
	if err != nil {
		return err
	}
	b := &bench{
		lab: l, plan: o.plan, random: rand.New(rand.NewPCG(o.seed, 0)), out: o.out,
		run: &report.Run{
			Started: time.Now(), Command: "go run ./bench " + strings.Join(os.Args[1:], " "),
			Leaks: map[string]*report.Leak{}, Options: map[string]string{"seed": fmt.Sprint(o.seed)},
		},
	}
	defer func() {
		l.Logf("cleaning up")
		if cleanup := errors.Join(b.close(), l.Close()); cleanup != nil {
			err = errors.Join(err, fmt.Errorf("cleaning up: %w", cleanup))
		}
	}()
	if err := b.open(ctx, o.peers); err != nil {
		return interrupted(ctx, err)
	}
	stopProfile, err := startProfile(o.profile)
	if err != nil {
		return err
	}
	err = errors.Join(interrupted(ctx, b.measure(ctx)), stopProfile())
	if err != nil {
		b.run.Notes = append(b.run.Notes, "the run did not get to its end: "+err.Error())
	}
	return errors.Join(err, b.save(), report.Write(os.Stdout, b.run))
}

// startProfile writes a CPU profile to a file, if one is named, until it is stopped.
func startProfile(file string) (stop func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// interrupted replaces an error that only says, in some way, that ctx has ended.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}
