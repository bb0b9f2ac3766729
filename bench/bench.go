package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/peers"
	"github.com/flash-sandbox/flash-sandbox/bench/report"
)

// plan says how much is measured.
type plan struct {
	rounds, creates, execs, pythons int
	bursts, burstSize, burstWidth   int
	leaks                           int
	getTime                         time.Duration
	factor                          float64 // how much noise a round may have
}

// bench is one run.
type bench struct {
	lab    *lab.Lab
	plan   plan
	random *rand.Rand
	out    string
	run    *report.Run
	opened []member
	spawn  peers.Box // bare processes, against which noise is told
	daemon *lab.Daemon
	nonce  int
}

// member is a peer that takes part.
type member struct {
	name string
	peers.Peer
}

// opTimeout bounds one operation of a peer.
const opTimeout = 60 * time.Second

// open opens the peers, and skips those that can't be.
func (b *bench) open(ctx context.Context, names []string) error {
	chosen := map[string]peers.Peer{}
	for _, name := range names {
		p, err := peers.New(name, b.lab)
		if err != nil {
			return err
		}
		chosen[name] = p
	}
	bare, err := peers.New(peers.Bare, b.lab)
	if err != nil {
		return err
	}
	if err := bare.Open(ctx); err != nil {
		return fmt.Errorf("no noise can be told without bare processes: %w", err)
	}
	if b.spawn, err = bare.Create(ctx, lab.Python); err != nil {
		return err
	}
	// The engine is there before a daemon that may use it.
	for _, name := range peers.Names {
		p, ok := chosen[name]
		if !ok {
			continue
		}
		b.lab.Logf("opening %s", name)
		err := openPeer(ctx, p)
		if err == nil {
			err = b.warmUp(ctx, member{name, p})
		}
		if ctx.Err() != nil {
			b.opened = append(b.opened, member{name, p}) // so that it is closed
			return ctx.Err()
		}
		if err != nil {
			b.lab.Logf("skipping %s: %v", name, err)
			b.run.Skipped = append(b.run.Skipped, report.Fact{Name: name, Text: err.Error()})
			if err := b.closePeer(member{name, p}); err != nil {
				b.run.Notes = append(b.run.Notes, fmt.Sprintf("closing %s: %v", name, err))
			}
			continue
		}
		b.opened = append(b.opened, member{name, p})
		b.run.Peers = append(b.run.Peers, name)
	}
	if len(b.opened) == 0 {
		return errors.New("no peer can run here")
	}
	if slices.Contains(b.run.Peers, peers.OursGVisor) || slices.Contains(b.run.Peers, peers.OursDocker) {
		if b.daemon, err = b.lab.Daemon(ctx); err != nil {
			return err
		}
		b.run.Rest = &b.daemon.AtRest
	}
	b.run.Facts = b.facts(ctx)
	return nil
}

// openTimeout bounds the opening of a peer, which may wait for packages, for an
// engine, or for others that start engines too.
const openTimeout = 5 * time.Minute

func openPeer(ctx context.Context, p peers.Peer) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return p.Open(ctx)
}

// warmUp has a peer do everything once: images are pulled and unpacked, pages
// are read, and what does not work shows.
func (b *bench) warmUp(ctx context.Context, m member) error {
	for _, kind := range lab.Kinds {
		var r report.Round
		b.sequence(ctx, &r, m, kind, 1, kind == lab.Python)
		for _, s := range r.Samples {
			if s.Error != "" {
				return fmt.Errorf("%s: %s", s.Op, s.Error)
			}
		}
	}
	return nil
}

func (b *bench) closePeer(m member) error {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	return m.Close(ctx)
}

// close closes the peers.
func (b *bench) close() error {
	var errs []error
	for _, m := range slices.Backward(b.opened) {
		if err := b.closePeer(m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}

// measure does all rounds. What it has measured is in b.run also when it
// returns an error, which is the context's.
func (b *bench) measure(ctx context.Context) error {
	if err := b.rounds(ctx, report.Sequence, b.plan.rounds, b.sequenceRound); err != nil {
		return err
	}
	if err := b.rounds(ctx, report.Bursts, b.plan.bursts, b.burstRound); err != nil {
		return err
	}
	return b.daemonChecks(ctx)
}

// rounds repeats a round until enough of them count, but no more than three
// times as often as that.
func (b *bench) rounds(ctx context.Context, kind string, want int, do func(context.Context, *report.Round)) error {
	for tried := 0; ; tried++ {
		count := b.run.Judge(b.plan.factor, kind)
		if count >= want {
			return nil
		}
		if tried >= 3*want {
			b.run.Notes = append(b.run.Notes, fmt.Sprintf("the machine was too noisy: only %d of %d %s rounds count, and %d were wanted", count, tried, kind, want))
			return nil
		}
		b.lab.Logf("%s round %d, %d of %d count so far", kind, tried+1, count, want)
		r := report.Round{Kind: kind}
		do(ctx, &r)
		if ctx.Err() != nil {
			b.run.Judge(b.plan.factor, kind)
			return ctx.Err()
		}
		b.run.Rounds = append(b.run.Rounds, r)
		if err := b.save(); err != nil {
			return err
		}
	}
}

// shuffled returns the peers in an order drawn anew.
func (b *bench) shuffled() []member {
	out := slices.Clone(b.opened)
	b.random.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// save writes all samples so far to the file that was asked for.
func (b *bench) save() error {
	if b.out == "" {
		return nil
	}
	text, err := json.MarshalIndent(b.run, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.out, append(text, '\n'), 0o644)
}
