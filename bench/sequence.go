package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/peers"
	"github.com/flash-sandbox/flash-sandbox/bench/report"
)

// probes is how many bare spawns go before each turn and after the last.
const probes = 15

// probe spawns bare processes, whose time tells how noisy the machine is.
func (b *bench) probe(ctx context.Context, r *report.Round) {
	for range probes {
		began := time.Now()
		if _, err := b.spawn.Exec(ctx, "true"); err == nil {
			r.Spawn = append(r.Spawn, milliseconds(time.Since(began)))
		}
	}
	r.Contention = append(r.Contention, contention())
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// sequenceRound gives each peer a turn, one sandbox after the other.
func (b *bench) sequenceRound(ctx context.Context, r *report.Round) {
	for _, m := range b.shuffled() {
		r.Order = append(r.Order, m.name)
		b.probe(ctx, r)
		for i := range b.plan.creates {
			b.sequence(ctx, r, m, lab.Python, b.plan.execs, i == 0)
			if ctx.Err() != nil {
				return
			}
		}
	}
	b.probe(ctx, r)
	b.gets(ctx, r)
}

// sequence takes a sandbox of a peer from its creation to its deletion. Only a
// full one runs more in it than the first command.
func (b *bench) sequence(ctx context.Context, r *report.Round, m member, kind lab.Kind, execs int, full bool) {
	t := timer{ctx: ctx, round: r, peer: m.name}
	_, boxless := m.Peer.(peers.Boxless)
	began := time.Now()
	box, err := t.create(m, kind, boxless)
	if err != nil {
		return
	}
	defer func() {
		if ctx.Err() != nil {
			b.deleteAll(r, m.name, []peers.Box{box})
		} else if !boxless {
			t.do(report.Delete, time.Now(), func(ctx context.Context) error { return box.Delete(ctx) })
		}
	}()
	word := b.word()
	if !t.do(report.First, began, func(ctx context.Context) error { return expect(word + "\n")(box.Exec(ctx, "echo", word)) }) || !full {
		return
	}
	for range execs {
		t.do(report.Exec, time.Now(), func(ctx context.Context) error { return expect("")(box.Exec(ctx, "true")) })
	}
	for range b.plan.pythons {
		t.do(report.Py, time.Now(), func(ctx context.Context) error { return expect("1\n")(box.Python(ctx, "print(1)")) })
	}
}

// word returns one that no command has printed before, so that output which
// arrives in the wrong place shows.
func (b *bench) word() string {
	b.nonce++
	return fmt.Sprintf("hi-%d", b.nonce)
}

// errLost says that a command succeeded and its output did not arrive.
var errLost = errors.New("exit code 0 and other output than expected")

// expect returns a check of a command's result.
func expect(stdout string) func(peers.Output, error) error {
	return func(o peers.Output, err error) error {
		switch {
		case err != nil:
			return err
		case o.Code != 0:
			return fmt.Errorf("exit code %d: %.200s", o.Code, o.Stderr)
		case o.Stdout != stdout:
			return fmt.Errorf("%w: %.100q for %q", errLost, o.Stdout, stdout)
		}
		return nil
	}
}

// timer times operations and adds them to a round.
type timer struct {
	ctx   context.Context
	round *report.Round
	peer  string
}

func (t timer) create(m member, kind lab.Kind, boxless bool) (box peers.Box, err error) {
	if boxless {
		return m.Create(t.ctx, kind)
	}
	t.do(report.Create, time.Now(), func(ctx context.Context) error {
		box, err = m.Create(ctx, kind)
		return err
	})
	return box, err
}

// do does something and records the time since began, or that it failed.
func (t timer) do(op report.Op, began time.Time, f func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(t.ctx, opTimeout)
	defer cancel()
	err := f(ctx)
	took := time.Since(began)
	if t.ctx.Err() != nil {
		return false // interrupted: no failure of the peer's
	}
	s := report.Sample{Peer: t.peer, Op: op}
	if err != nil {
		s.Error, s.Lost = err.Error(), errors.Is(err, errLost)
	} else {
		s.Value = milliseconds(took)
	}
	t.round.Samples = append(t.round.Samples, s)
	return err == nil
}
