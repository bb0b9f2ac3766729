package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/peers"
	"github.com/flash-sandbox/flash-sandbox/bench/report"
)

// scripted is a peer whose answers a test decides.
type scripted struct {
	create  error
	exec    func(argv []string) (peers.Output, error)
	deleted int
}

func (p *scripted) Open(context.Context) error  { return nil }
func (p *scripted) Close(context.Context) error { return nil }
func (p *scripted) Create(context.Context, lab.Kind) (peers.Box, error) {
	if p.create != nil {
		return nil, p.create
	}
	return p, nil
}
func (p *scripted) Exec(_ context.Context, argv ...string) (peers.Output, error) { return p.exec(argv) }
func (p *scripted) Python(context.Context, string) (peers.Output, error) {
	return peers.Output{Stdout: "1\n"}, nil
}
func (p *scripted) Delete(context.Context) error { p.deleted++; return nil }

// echo is what a good peer does.
func echo(argv []string) (peers.Output, error) {
	if argv[0] == "echo" {
		return peers.Output{Stdout: strings.Join(argv[1:], " ") + "\n"}, nil
	}
	return peers.Output{}, nil
}

func newBench(t *testing.T, p peers.Peer) (*bench, member) {
	t.Helper()
	l, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(l.Dir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left", l.Dir())
		}
	})
	m := member{"scripted", p}
	return &bench{
		lab: l, run: &report.Run{}, random: rand.New(rand.NewPCG(1, 1)), opened: []member{m}, spawn: &scripted{exec: echo},
		plan: plan{rounds: 2, creates: 1, execs: 3, pythons: 2, burstSize: 6, burstWidth: 3, factor: 2},
	}, m
}

// count returns how many samples of an operation there are, and how many of
// them failed and were lost.
func count(r report.Round, op report.Op) (all, failed, lost int) {
	for _, s := range r.Samples {
		if s.Op == op {
			all++
			if s.Error != "" {
				failed++
			}
			if s.Lost {
				lost++
			}
		}
	}
	return all, failed, lost
}

func TestSequence(t *testing.T) {
	p := &scripted{exec: echo}
	b, m := newBench(t, p)
	var r report.Round
	b.sequence(t.Context(), &r, m, lab.Python, b.plan.execs, true)
	for op, want := range map[report.Op]int{report.Create: 1, report.First: 1, report.Exec: 3, report.Py: 2, report.Delete: 1} {
		if all, failed, _ := count(r, op); all != want || failed != 0 {
			t.Errorf("%s: %d samples, %d failed, want %d good ones", op, all, failed, want)
		}
	}
}

func TestSequenceCountsLostOutput(t *testing.T) {
	p := &scripted{exec: func(argv []string) (peers.Output, error) {
		if argv[0] == "echo" {
			return peers.Output{}, nil
		}
		return echo(argv)
	}}
	b, m := newBench(t, p)
	var r report.Round
	b.sequence(t.Context(), &r, m, lab.Python, b.plan.execs, true)
	if all, failed, lost := count(r, report.First); all != 1 || failed != 1 || lost != 1 {
		t.Errorf("first: %d samples, %d failed, %d lost, want 1 of each", all, failed, lost)
	}
	if p.deleted != 1 {
		t.Errorf("deleted %d times, want once", p.deleted)
	}
}

func TestSequenceCountsFailures(t *testing.T) {
	p := &scripted{create: errors.New("no room")}
	b, m := newBench(t, p)
	var r report.Round
	b.sequence(t.Context(), &r, m, lab.Python, 1, true)
	if all, failed, _ := count(r, report.Create); all != 1 || failed != 1 || len(r.Samples) != 1 {
		t.Errorf("got %+v, want one failed create and nothing else", r.Samples)
	}
	p.create = nil
	p.exec = func(argv []string) (peers.Output, error) {
		if argv[0] == "true" {
			return peers.Output{Code: 137}, nil
		}
		return echo(argv)
	}
	b.sequence(t.Context(), &r, m, lab.Python, 4, true)
	if all, failed, lost := count(r, report.Exec); all != 4 || failed != 4 || lost != 0 {
		t.Errorf("exec: %d samples, %d failed, %d lost, want 4 failed and none lost", all, failed, lost)
	}
}

func TestBurst(t *testing.T) {
	p := &scripted{exec: echo}
	b, m := newBench(t, p)
	var r report.Round
	b.burst(t.Context(), &r, m)
	if all, failed, _ := count(r, report.Burst); all != 1 || failed != 0 {
		t.Errorf("burst: %d samples, %d failed, want one good one", all, failed)
	}
	// One word comes back for another's.
	p.exec = func([]string) (peers.Output, error) { return peers.Output{Stdout: "hi-7\n"}, nil }
	r = report.Round{}
	b.burst(t.Context(), &r, m)
	if all, failed, lost := count(r, report.Burst); all != 5 || failed != 5 || lost != 5 {
		t.Errorf("crossed output: %d samples, %d failed, %d lost, want 5 of each", all, failed, lost)
	}
}

func TestRoundsAreRepeated(t *testing.T) {
	b, _ := newBench(t, &scripted{exec: echo})
	noise := []float64{1, 5, 5, 1.5}
	n := 0
	err := b.rounds(t.Context(), report.Sequence, 2, func(_ context.Context, r *report.Round) {
		r.Spawn = []float64{noise[n]}
		n++
	})
	if err != nil || n != 4 {
		t.Errorf("%d rounds, %v, want 4", n, err)
	}
	if len(b.run.Notes) != 0 {
		t.Errorf("notes: %q", b.run.Notes)
	}
}

func TestRoundsAreBounded(t *testing.T) {
	b, _ := newBench(t, &scripted{exec: echo})
	n := 0
	err := b.rounds(t.Context(), report.Sequence, 2, func(_ context.Context, r *report.Round) {
		r.Spawn = []float64{100}
		if n == 0 {
			r.Spawn = []float64{1}
		}
		n++
	})
	if err != nil || n != 6 {
		t.Errorf("%d rounds, %v, want 6", n, err)
	}
	if len(b.run.Notes) != 1 || !strings.Contains(b.run.Notes[0], "only 1 of 6") {
		t.Errorf("notes: %q", b.run.Notes)
	}
}

func TestInterruptedRoundDoesNotCount(t *testing.T) {
	b, _ := newBench(t, &scripted{exec: echo})
	ctx, cancel := context.WithCancel(t.Context())
	err := b.rounds(ctx, report.Sequence, 2, func(_ context.Context, r *report.Round) {
		r.Spawn = []float64{1}
		cancel()
	})
	if !errors.Is(err, context.Canceled) || len(b.run.Rounds) != 0 {
		t.Errorf("%v, %d rounds kept, want the interrupt and none", err, len(b.run.Rounds))
	}
}

func TestUnknownPeer(t *testing.T) {
	_, err := peers.New("podman", nil)
	if err == nil || !strings.Contains(err.Error(), "docker-sdk") {
		t.Errorf("%v, want an error that lists the peers", err)
	}
	if slices.Contains(peers.Names, "podman") {
		t.Error("it is listed")
	}
}
