// Package stats is the little arithmetic that the benchmark needs:
// percentiles, ratios of two things measured side by side, and the rule by
// which a round of measurements counts. It knows nothing of sandboxes.
//
//	p50 := stats.Percentile(samples, 50)
//	counts := stats.Accept(spawnMedians, 2)
package stats

import (
	"math"
	"slices"
)

// Percentile returns the p-th percentile (0 to 100) of xs by the nearest rank:
// the least sample that at least p percent of all samples do not exceed. It
// is NaN when there are no samples, and xs is left as it is.
func Percentile(xs []float64, p float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(xs))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median is the 50th percentile.
func Median(xs []float64) float64 { return Percentile(xs, 50) }

// Comparison says how much one thing exceeds another.
type Comparison struct {
	Ratio    float64 // of the medians over all rounds
	Min, Max float64 // of the ratios of the medians within each round
	Rounds   int     // in which both were measured
}

// Compare returns the ratio of a to b, which hold the samples of the same
// rounds in the same order. Rounds that lack either count only for the
// medians over all. ok is false when there is nothing to compare, or b's
// median is 0.
func Compare(a, b [][]float64) (c Comparison, ok bool) {
	c = Comparison{Ratio: Median(slices.Concat(a...)) / Median(slices.Concat(b...)), Min: math.Inf(1), Max: math.Inf(-1)}
	if math.IsNaN(c.Ratio) || math.IsInf(c.Ratio, 0) {
		return Comparison{}, false
	}
	for i := range min(len(a), len(b)) {
		r := Median(a[i]) / Median(b[i])
		if math.IsNaN(r) || math.IsInf(r, 0) {
			continue
		}
		c.Min, c.Max = min(c.Min, r), max(c.Max, r)
		c.Rounds++
	}
	if c.Rounds == 0 {
		c.Min, c.Max = c.Ratio, c.Ratio
	}
	return c, true
}

// Accept says which rounds count: those whose reference, the same work done in
// every round, took at most factor times as long as in the best round of all.
// A round without a reference (NaN) does not count.
func Accept(reference []float64, factor float64) []bool {
	best := math.Inf(1)
	for _, r := range reference {
		if !math.IsNaN(r) {
			best = min(best, r)
		}
	}
	out := make([]bool, len(reference))
	for i, r := range reference {
		out[i] = r <= factor*best
	}
	return out
}
