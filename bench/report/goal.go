package report

import (
	"fmt"

	"github.com/flash-sandbox/flash-sandbox/bench/peers"
)

// State is a verdict on one goal.
type State string

// The verdicts.
const (
	Reached     State = "reached"
	NotReached  State = "not reached"
	NotMeasured State = "not measured"
)

// Goal is one thing that has to be so.
type Goal struct {
	Text  string // what is compared
	Want  string
	Got   string
	State State
}

// Goals judges the run.
func Goals(r *Run) []Goal {
	our := peers.OursGVisor
	return []Goal{
		r.atMost("exec, gVisor by HTTP ÷ in-process", our, Exec, peers.InProcess, Exec, 1.4),
		r.atLeast("docker exec ÷ exec, gVisor by HTTP", peers.DockerCLI, Exec, our, Exec, 7),
		r.atMost("create→first exec, gVisor by HTTP ÷ runsc run -detach", our, First, peers.Runsc, Create, 1.5),
		r.atLeast("burst by Docker's Python SDK ÷ burst, gVisor by HTTP", peers.DockerSDK, Burst, our, Burst, 2.5),
		r.gets(5000),
		r.memory(60e6),
		r.leakless(),
	}
}

func (r *Run) atMost(text, peerA string, opA Op, peerB string, opB Op, limit float64) Goal {
	return r.ratio(text, peerA, opA, peerB, opB, limit, "at most %s", func(x float64) bool { return x <= limit })
}

func (r *Run) atLeast(text, peerA string, opA Op, peerB string, opB Op, limit float64) Goal {
	return r.ratio(text, peerA, opA, peerB, opB, limit, "at least %s", func(x float64) bool { return x >= limit })
}

func (r *Run) ratio(text, peerA string, opA Op, peerB string, opB Op, limit float64, want string, ok func(float64) bool) Goal {
	g := Goal{Text: text, Want: fmt.Sprintf(want, number(limit)), Got: "–", State: NotMeasured}
	c, there := r.compare(peerA, opA, peerB, opB)
	if !there {
		return g
	}
	g.Got, g.State = times(c, true), verdict(ok(c.Ratio))
	return g
}

func verdict(ok bool) State {
	if ok {
		return Reached
	}
	return NotReached
}

func (r *Run) gets(limit float64) Goal {
	g := Goal{Text: "GET /sandboxes/{id}, requests/s", Want: "over " + number(limit), Got: "–", State: NotMeasured}
	if x := r.percentile(OurServer, Get, 50); x > 0 {
		g.Got, g.State = number(x), verdict(x > limit)
	}
	return g
}

// memory judges by the larger one: a daemon is at rest before its first
// sandbox, and again after its last.
func (r *Run) memory(limit float64) Goal {
	g := Goal{Text: "fsbd at rest, MB resident", Want: "under " + number(limit/1e6), Got: "–", State: NotMeasured}
	if r.Rest == nil || r.Rest.RSS < 0 {
		return g
	}
	x := float64(r.Rest.RSS)
	g.Got = number(x / 1e6)
	if r.After != nil && r.After.RSS >= 0 {
		g.Got += ", in the end " + number(float64(r.After.RSS)/1e6)
		x = max(x, float64(r.After.RSS))
	}
	g.State = verdict(x < limit)
	return g
}

// leakless judges by what is left per sandbox: a few descriptors that came
// once and stay are no leak, one for every other sandbox is.
func (r *Run) leakless() Goal {
	const enough = 10 // sandboxes, to tell a leak from a pool that fills
	g := Goal{Text: "fds and goroutines left per ended sandbox", Want: "none", Got: "–", State: NotMeasured}
	for _, p := range r.Peers {
		l := r.Leaks[p]
		if l == nil || l.Before.FDs < 0 || l.After.FDs < 0 || l.Before.Goroutines < 0 || l.After.Goroutines < 0 {
			continue
		}
		fds, routines := l.After.FDs-l.Before.FDs, l.After.Goroutines-l.Before.Goroutines
		if g.Got == "–" {
			g.Got = ""
		} else {
			g.Got += "; "
		}
		if l.Sandboxes >= enough && g.State == NotMeasured {
			g.State = Reached
		}
		g.Got += fmt.Sprintf("%+d fds, %+d goroutines after %d of %s", fds, routines, l.Sandboxes, p)
		if allowed := int64(l.Sandboxes / 4); l.Sandboxes >= enough && (fds > allowed || routines > allowed) {
			g.State = NotReached
		}
	}
	return g
}

// Verdict is the table of goals.
func Verdict(r *Run) Table {
	t := Table{Head: []string{"goal", "wanted", "measured", "verdict"}}
	for _, g := range Goals(r) {
		t.Rows = append(t.Rows, []string{g.Text, g.Want, g.Got, string(g.State)})
	}
	return t
}
