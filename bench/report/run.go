// Package report keeps what a run of the benchmark has measured, and turns it
// into tables of medians and ratios and into a verdict on each goal. It
// measures nothing.
//
//	run.Rounds = append(run.Rounds, round)
//	run.Judge(2)
//	report.Write(os.Stdout, run)
package report

import (
	"slices"
	"time"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/stats"
)

// Op is a thing that is measured.
type Op string

// The operations. Values are milliseconds where nothing else is said.
const (
	Create Op = "create" // until the sandbox is there
	First  Op = "first"  // from the beginning of create to the output of the first command
	Exec   Op = "exec"   // `true`, whose exit is waited for
	Py     Op = "python" // print(1) in a fresh interpreter
	Delete Op = "delete" // until the reply
	Burst  Op = "burst"  // many sandboxes at once, each until its first output; for all of them together
	Get    Op = "get"    // requests per second for one sandbox's record
)

// Kinds of rounds.
const (
	Sequence = "sequence" // one sandbox after the other
	Bursts   = "burst"    // many at once
)

// Names of what is measured under Get besides the daemons.
const (
	EmptyServer = "empty handler" // an HTTP server in Go that does nothing
	OurServer   = "fsbd"
)

// Run is everything measured in one run, and how.
type Run struct {
	Started time.Time         `json:"started"`
	Command string            `json:"command"`
	Facts   []Fact            `json:"facts"`
	Peers   []string          `json:"peers"`   // that took part
	Skipped []Fact            `json:"skipped"` // peers that did not, and why
	Rounds  []Round           `json:"rounds"`
	Rest    *lab.Gauges       `json:"rest,omitempty"`  // of fsbd, before its first sandbox
	After   *lab.Gauges       `json:"after,omitempty"` // at the end, without sandboxes
	Leaks   map[string]*Leak  `json:"leaks,omitempty"` // by peer
	Notes   []string          `json:"notes,omitempty"` // things that went wrong, a sentence each
	Options map[string]string `json:"options"`
}

// Fact is a name and what it stands for.
type Fact struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Leak is what a daemon held before and after sandboxes came and went.
type Leak struct {
	Sandboxes int        `json:"sandboxes"`
	Before    lab.Gauges `json:"before"`
	After     lab.Gauges `json:"after"`
}

// Round is one turn of all peers in random order.
type Round struct {
	Kind     string    `json:"kind"`
	Order    []string  `json:"order"`
	Spawn    []float64 `json:"spawn_ms"` // bare spawns between the peers' turns
	Accepted bool      `json:"accepted"`
	// Contention is, between the peers' turns, how much longer than its CPU
	// time it took to compute on all cores.
	Contention []float64 `json:"contention"`
	Samples    []Sample  `json:"samples"`
}

// Sample is one measurement, or a failure where one should have been.
type Sample struct {
	Peer  string  `json:"peer"`
	Op    Op      `json:"op"`
	Value float64 `json:"value"` // in the unit of Op; 0 for a failure
	Error string  `json:"error,omitempty"`
	Lost  bool    `json:"lost,omitempty"` // the command succeeded, its output did not arrive
}

// Judge marks the rounds that count: those whose bare spawns, at the median,
// took at most factor times as long as those of the best round. A later round
// may take the acceptance of an earlier one away. It returns how many of the
// kind count.
func (r *Run) Judge(factor float64, kind string) int {
	medians := make([]float64, len(r.Rounds))
	for i := range r.Rounds {
		medians[i] = stats.Median(r.Rounds[i].Spawn)
	}
	n := 0
	for i, ok := range stats.Accept(medians, factor) {
		r.Rounds[i].Accepted = ok
		if ok && r.Rounds[i].Kind == kind {
			n++
		}
	}
	return n
}

// byRound returns a peer's values of an operation, a slice for each accepted round.
func (r *Run) byRound(peer string, op Op) [][]float64 {
	var out [][]float64
	for _, round := range r.Rounds {
		if !round.Accepted {
			continue
		}
		var xs []float64
		for _, s := range round.Samples {
			if s.Peer == peer && s.Op == op && s.Error == "" {
				xs = append(xs, s.Value)
			}
		}
		out = append(out, xs)
	}
	return out
}

// percentile returns a percentile over all accepted rounds; NaN for none.
func (r *Run) percentile(peer string, op Op, p float64) float64 {
	return stats.Percentile(slices.Concat(r.byRound(peer, op)...), p)
}

// compare returns the ratio of two things measured in the same rounds.
func (r *Run) compare(peerA string, opA Op, peerB string, opB Op) (stats.Comparison, bool) {
	return stats.Compare(r.byRound(peerA, opA), r.byRound(peerB, opB))
}

// failures counts what went wrong with a peer, in all rounds: a round that was
// too noisy to count excuses no lost output.
func (r *Run) failures(peer string) (failed, lost int, example string) {
	for _, round := range r.Rounds {
		for _, s := range round.Samples {
			if s.Peer != peer || s.Error == "" {
				continue
			}
			failed++
			if s.Lost {
				lost++
			}
			if example == "" {
				example = string(s.Op) + ": " + s.Error
			}
		}
	}
	return failed, lost, example
}
