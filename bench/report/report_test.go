package report_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/peers"
	"github.com/flash-sandbox/flash-sandbox/bench/report"
)

// round makes a round whose bare spawns took spawn, with values by peer and operation.
func round(spawn float64, values map[string]map[report.Op][]float64) report.Round {
	r := report.Round{Kind: report.Sequence, Spawn: []float64{spawn, spawn}}
	for peer, ops := range values {
		for op, xs := range ops {
			for _, x := range xs {
				r.Samples = append(r.Samples, report.Sample{Peer: peer, Op: op, Value: x})
			}
		}
	}
	return r
}

func TestJudge(t *testing.T) {
	run := &report.Run{Rounds: []report.Round{round(1.9, nil), round(1.2, nil), round(3, nil)}}
	if n := run.Judge(2, report.Sequence); n != 2 {
		t.Errorf("%d rounds count, want 2", n)
	}
	// A better round takes the first one's acceptance away.
	run.Rounds = append(run.Rounds, round(0.9, nil))
	if n := run.Judge(2, report.Sequence); n != 2 {
		t.Errorf("%d rounds count after a better one, want 2", n)
	}
	var got []bool
	for _, r := range run.Rounds {
		got = append(got, r.Accepted)
	}
	if want := []bool{false, true, false, true}; !slices.Equal(got, want) {
		t.Errorf("accepted: %v, want %v", got, want)
	}
	if n := run.Judge(2, report.Bursts); n != 0 {
		t.Errorf("%d bursts count, want none as there were none", n)
	}
}

// full is a run in which every goal is reached, but just.
func full() *report.Run {
	run := &report.Run{
		Peers: []string{peers.Runsc, peers.InProcess, peers.DockerCLI, peers.DockerSDK, peers.OursGVisor},
		Rest:  &lab.Gauges{RSS: 50e6, Anonymous: 20e6, FDs: 10, Goroutines: 12, Threads: 8},
		After: &lab.Gauges{RSS: 59e6, Anonymous: 30e6, FDs: 10, Goroutines: 12, Threads: 9},
		Leaks: map[string]*report.Leak{peers.OursGVisor: {
			Sandboxes: 20, Before: lab.Gauges{FDs: 10, Goroutines: 12}, After: lab.Gauges{FDs: 11, Goroutines: 12},
		}},
		Rounds: []report.Round{round(1, map[string]map[report.Op][]float64{
			peers.Runsc:        {report.Create: {100}},
			peers.InProcess:    {report.Exec: {5, 5, 5}},
			peers.DockerCLI:    {report.Exec: {49, 50, 60}},
			peers.DockerSDK:    {report.Burst: {5000}},
			peers.OursGVisor:   {report.First: {150}, report.Exec: {7, 7, 7}, report.Burst: {2000}},
			report.OurServer:   {report.Get: {5001}},
			report.EmptyServer: {report.Get: {20000}},
		})},
	}
	run.Judge(2, report.Sequence)
	return run
}

func states(run *report.Run) []report.State {
	var out []report.State
	for _, g := range report.Goals(run) {
		out = append(out, g.State)
	}
	return out
}

func TestGoals(t *testing.T) {
	const yes, no, none = report.Reached, report.NotReached, report.NotMeasured
	set := func(peer string, op report.Op, x float64) func(*report.Run) {
		return func(run *report.Run) {
			for i, s := range run.Rounds[0].Samples {
				if s.Peer == peer && s.Op == op {
					run.Rounds[0].Samples[i].Value = x
				}
			}
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*report.Run)
		want   []report.State
	}{
		{"all", func(*report.Run) {}, []report.State{yes, yes, yes, yes, yes, yes, yes}},
		{"exec", set(peers.InProcess, report.Exec, 4.9), []report.State{no, yes, yes, yes, yes, yes, yes}},
		{"docker", set(peers.DockerCLI, report.Exec, 48), []report.State{yes, no, yes, yes, yes, yes, yes}},
		{"create", set(peers.OursGVisor, report.First, 151), []report.State{yes, yes, no, yes, yes, yes, yes}},
		{"burst", set(peers.DockerSDK, report.Burst, 4999), []report.State{yes, yes, yes, no, yes, yes, yes}},
		{"get", set(report.OurServer, report.Get, 5000), []report.State{yes, yes, yes, yes, no, yes, yes}},
		{"memory at rest", func(r *report.Run) { r.Rest.RSS = 60e6 }, []report.State{yes, yes, yes, yes, yes, no, yes}},
		{"memory in the end", func(r *report.Run) { r.After.RSS = 61e6 }, []report.State{yes, yes, yes, yes, yes, no, yes}},
		{"fds", func(r *report.Run) { r.Leaks[peers.OursGVisor].After.FDs = 30 }, []report.State{yes, yes, yes, yes, yes, yes, no}},
		{"goroutines", func(r *report.Run) { r.Leaks[peers.OursGVisor].After.Goroutines = 32 }, []report.State{yes, yes, yes, yes, yes, yes, no}},
		{"goroutines are not known", func(r *report.Run) { r.Leaks[peers.OursGVisor].After.Goroutines = -1 }, []report.State{yes, yes, yes, yes, yes, yes, none}},
		{"too few sandboxes to tell", func(r *report.Run) {
			r.Leaks[peers.OursGVisor].Sandboxes, r.Leaks[peers.OursGVisor].After.FDs = 4, 14
		}, []report.State{yes, yes, yes, yes, yes, yes, none}},
		{"nothing counts", func(r *report.Run) { r.Rounds[0].Accepted = false }, []report.State{none, none, none, none, none, yes, yes}},
		{"no daemon", func(r *report.Run) { r.Rest, r.After, r.Leaks = nil, nil, nil }, []report.State{yes, yes, yes, yes, yes, none, none}},
	} {
		run := full()
		tc.change(run)
		if diff := cmp.Diff(tc.want, states(run)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tc.name, diff)
		}
	}
}

func TestLatencies(t *testing.T) {
	run := &report.Run{Peers: []string{peers.OursGVisor}, Rounds: []report.Round{
		round(1, map[string]map[report.Op][]float64{peers.OursGVisor: {report.Create: {80}, report.First: {90}, report.Exec: {1, 2, 3}, report.Burst: {1234}}}),
		round(9, map[string]map[report.Op][]float64{peers.OursGVisor: {report.Exec: {500}}}),
	}}
	// Noise does not excuse what has been lost.
	run.Rounds[1].Samples = append(run.Rounds[1].Samples,
		report.Sample{Peer: peers.OursGVisor, Op: report.Exec, Error: "gone", Lost: true},
		report.Sample{Peer: peers.OursGVisor, Op: report.Delete, Error: "busy"})
	run.Judge(2, report.Sequence)
	want := [][]string{{"ours-gvisor", "80.0", "90.0", "2.00", "3.00", "–", "–", "1.23", "2", "1"}}
	if diff := cmp.Diff(want, report.Latencies(run).Rows); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRatios(t *testing.T) {
	values := func(docker, ours float64) map[string]map[report.Op][]float64 {
		return map[string]map[report.Op][]float64{peers.DockerSDK: {report.Exec: {docker}}, peers.OursGVisor: {report.Exec: {ours}}}
	}
	run := &report.Run{
		Peers:  []string{peers.DockerSDK, peers.OursGVisor},
		Rounds: []report.Round{round(1, values(50, 5)), round(1, values(60, 5)), round(1, values(70, 7))},
	}
	run.Judge(2, report.Sequence)
	want := [][]string{{"docker-sdk", "–", "12.0 (10.0…12.0)", "10.0", "–", "–", "–"}}
	if diff := cmp.Diff(want, report.Ratios(run, peers.OursGVisor).Rows); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	table := report.Table{Head: []string{"name", "÷"}, Rows: [][]string{{"a", "1…2"}, {"longer", "–"}}}
	if _, err := table.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"| name   |   ÷ |",
		"|--------|----:|",
		"| a      | 1…2 |",
		"| longer |   – |",
		"",
	}, "\n")
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWriteNamesWhatWasSkipped(t *testing.T) {
	run := full()
	run.Skipped = []report.Fact{{Name: peers.OursDocker, Text: "dockerd is not installed"}}
	run.Notes = []string{"the machine was too noisy"}
	run.Rounds[0].Samples = append(run.Rounds[0].Samples, report.Sample{Peer: peers.DockerCLI, Op: report.Exec, Error: "no such container"})
	var b bytes.Buffer
	if err := report.Write(&b, run); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"skipped ours-docker: dockerd is not installed", "note: the machine was too noisy",
		"docker-cli failed 1 times; the first: exec: no such container", "rounds: 1 of 1 count", "÷ ours-gvisor",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, b.String())
		}
	}
}

func TestSamplesAreJSON(t *testing.T) {
	run := full()
	text, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	var back report.Run
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run, &back); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
