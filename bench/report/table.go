package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/peers"
	"github.com/flash-sandbox/flash-sandbox/bench/stats"
)

// Table is a table in Markdown that can be read as it is.
type Table struct {
	Head []string
	Rows [][]string
}

// WriteTo writes the table with its columns aligned: the first to the left,
// the others to the right.
func (t Table) WriteTo(w io.Writer) (int64, error) {
	width := make([]int, len(t.Head))
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	line := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString("| " + cell + pad + " |")
			} else {
				b.WriteString(" " + pad + cell + " |")
			}
		}
		b.WriteByte('\n')
	}
	line(t.Head)
	for i, n := range width {
		if i == 0 {
			b.WriteString("|" + strings.Repeat("-", n+2) + "|")
		} else {
			b.WriteString(strings.Repeat("-", n+1) + ":|")
		}
	}
	b.WriteByte('\n')
	for _, row := range t.Rows {
		line(row)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// number writes x with three digits that count; nothing is a dash.
func number(x float64) string {
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return "–"
	case math.Abs(x) >= 99.95:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 9.995:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// times writes a ratio and how far it went from round to round.
func times(c stats.Comparison, ok bool) string {
	if !ok {
		return "–"
	}
	if c.Rounds < 2 {
		return number(c.Ratio)
	}
	return fmt.Sprintf("%s (%s…%s)", number(c.Ratio), number(c.Min), number(c.Max))
}

// Latencies is the table of medians.
func Latencies(r *Run) Table {
	t := Table{Head: []string{"ms", "create", "create→first", "exec p50", "exec p99", "python", "delete", "burst (s)", "failed", "lost"}}
	for _, p := range r.Peers {
		failed, lost, _ := r.failures(p)
		t.Rows = append(t.Rows, []string{
			p,
			number(r.percentile(p, Create, 50)), number(r.percentile(p, First, 50)),
			number(r.percentile(p, Exec, 50)), number(r.percentile(p, Exec, 99)),
			number(r.percentile(p, Py, 50)), number(r.percentile(p, Delete, 50)),
			number(r.percentile(p, Burst, 50) / 1000),
			fmt.Sprint(failed), fmt.Sprint(lost),
		})
	}
	return t
}

// Ratios is the table of how many times as long each peer takes as one of ours.
func Ratios(r *Run, ours string) Table {
	t := Table{Head: []string{"÷ " + ours, "create→first", "exec p50", "exec p99", "python", "delete", "burst"}}
	for _, p := range r.Peers {
		if p == ours {
			continue
		}
		row := []string{p}
		for _, op := range []Op{First, Exec} {
			row = append(row, times(r.compare(p, op, ours, op)))
		}
		row = append(row, number(r.percentile(p, Exec, 99)/r.percentile(ours, Exec, 99)))
		for _, op := range []Op{Py, Delete, Burst} {
			row = append(row, times(r.compare(p, op, ours, op)))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// Gets is the table of requests per second.
func Gets(r *Run) Table {
	t := Table{Head: []string{"GET, 16 at a time", "requests/s", "÷ " + EmptyServer}}
	for _, p := range []string{EmptyServer, OurServer} {
		if math.IsNaN(r.percentile(p, Get, 50)) {
			continue
		}
		t.Rows = append(t.Rows, []string{p, number(r.percentile(p, Get, 50)), times(r.compare(p, Get, EmptyServer, Get))})
	}
	return t
}

// Daemon is the table of what fsbd holds.
func Daemon(r *Run) Table {
	t := Table{Head: []string{"fsbd", "RSS MB", "of it its own", "fds", "goroutines", "threads"}}
	mb := func(n int64) string {
		if n < 0 {
			return "–"
		}
		return number(float64(n) / 1e6)
	}
	count := func(n int64) string {
		if n < 0 {
			return "–"
		}
		return fmt.Sprint(n)
	}
	add := func(name string, g *lab.Gauges) {
		if g != nil {
			t.Rows = append(t.Rows, []string{name, mb(g.RSS), mb(g.Anonymous), count(g.FDs), count(g.Goroutines), count(g.Threads)})
		}
	}
	add("at rest, before its first sandbox", r.Rest)
	for _, p := range r.Peers {
		if l := r.Leaks[p]; l != nil {
			add(fmt.Sprintf("before %d more of %s", l.Sandboxes, p), &l.Before)
			add(fmt.Sprintf("after %d more of %s", l.Sandboxes, p), &l.After)
		}
	}
	add("at the end, without sandboxes", r.After)
	return t
}

// Write writes all tables and the verdict.
func Write(w io.Writer, r *Run) error {
	var b strings.Builder
	for _, f := range r.Facts {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Text)
	}
	for _, f := range r.Skipped {
		fmt.Fprintf(&b, "skipped %s: %s\n", f.Name, strings.TrimSpace(f.Text))
	}
	b.WriteString(rounds(r) + "\n")
	section := func(t Table) {
		if len(t.Rows) > 0 {
			b.WriteByte('\n')
			_, _ = t.WriteTo(&b)
		}
	}
	section(Latencies(r))
	for _, ours := range []string{peers.OursGVisor, peers.OursDocker} {
		if r.took(ours) {
			section(Ratios(r, ours))
		}
	}
	section(Gets(r))
	section(Daemon(r))
	section(Verdict(r))
	for _, p := range r.Peers {
		if failed, _, example := r.failures(p); failed > 0 {
			fmt.Fprintf(&b, "\n%s failed %d times; the first: %s\n", p, failed, example)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "\nnote: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Run) took(peer string) bool {
	for _, p := range r.Peers {
		if p == peer {
			return true
		}
	}
	return false
}

// rounds says how many rounds count.
func rounds(r *Run) string {
	count := map[string]int{}
	all := map[string]int{}
	best, worst := math.Inf(1), 0.0
	var contention []float64
	for _, round := range r.Rounds {
		all[round.Kind]++
		if round.Accepted {
			count[round.Kind]++
			m := stats.Median(round.Spawn)
			best, worst = min(best, m), max(worst, m)
			contention = append(contention, round.Contention...)
		}
	}
	text := fmt.Sprintf("rounds: %d of %d count, bursts: %d of %d; a bare spawn took %s to %s ms at the median in those that count",
		count[Sequence], all[Sequence], count[Bursts], all[Bursts], number(best), number(worst))
	if len(contention) > 0 {
		text += fmt.Sprintf("\nneighbours: computing on all cores took %s times its CPU time at the median, %s at the 90th percentile; 1 is an idle machine",
			number(stats.Median(contention)), number(stats.Percentile(contention, 90)))
	}
	return text
}
