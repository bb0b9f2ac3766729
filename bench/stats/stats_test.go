package stats_test

import (
	"math"
	"slices"
	"testing"

	"github.com/flash-sandbox/flash-sandbox/bench/stats"
)

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, tc := range []struct {
		name string
		xs   []float64
		p    float64
		want float64
	}{
		{"one sample", []float64{3}, 99, 3},
		{"median of an odd number", []float64{9, 1, 5}, 50, 5},
		{"median of an even number is the lower one", []float64{4, 1, 3, 2}, 50, 2},
		{"p99 of a hundred is the last but one", hundred, 99, 99},
		{"p100 is the largest", hundred, 100, 100},
		{"p0 is the least", hundred, 0, 1},
		{"p99 of few is the largest", []float64{1, 2, 40}, 99, 40},
	} {
		if got := stats.Percentile(tc.xs, tc.p); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
	if got := stats.Percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("no samples: got %v, want NaN", got)
	}
	xs := []float64{3, 1, 2}
	stats.Percentile(xs, 50)
	if !slices.Equal(xs, []float64{3, 1, 2}) {
		t.Errorf("the samples were reordered: %v", xs)
	}
}

func TestCompare(t *testing.T) {
	a := [][]float64{{10, 20, 30}, {40, 40, 40}, nil}
	b := [][]float64{{10, 10, 10}, {20, 20, 20}, {10}}
	got, ok := stats.Compare(a, b)
	if !ok {
		t.Fatal("nothing compared")
	}
	// Medians over all: 30 of a, 10 of b. By round: 2 and 2.
	if want := (stats.Comparison{Ratio: 3, Min: 2, Max: 2, Rounds: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCompareSpread(t *testing.T) {
	got, ok := stats.Compare([][]float64{{1}, {3}, {8}}, [][]float64{{1}, {1}, {2}})
	if want := (stats.Comparison{Ratio: 3, Min: 1, Max: 4, Rounds: 3}); !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

func TestCompareNothing(t *testing.T) {
	for _, tc := range []struct{ a, b [][]float64 }{
		{nil, nil},
		{[][]float64{{1}}, nil},
		{nil, [][]float64{{1}}},
		{[][]float64{{1}}, [][]float64{{0}}},
	} {
		if got, ok := stats.Compare(tc.a, tc.b); ok {
			t.Errorf("Compare(%v, %v) = %+v, want nothing", tc.a, tc.b, got)
		}
	}
	// Never in the same round: the medians over all are still a ratio.
	got, ok := stats.Compare([][]float64{{6}, nil}, [][]float64{nil, {2}})
	if want := (stats.Comparison{Ratio: 3, Min: 3, Max: 3}); !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

func TestAccept(t *testing.T) {
	for _, tc := range []struct {
		name string
		ref  []float64
		want []bool
	}{
		{"none", nil, []bool{}},
		{"one is its own best", []float64{7}, []bool{true}},
		{"twice the best still counts", []float64{1, 2, 2.01}, []bool{true, true, false}},
		{"a late best rejects what came before", []float64{3, 3, 1}, []bool{false, false, true}},
		{"without a reference", []float64{math.NaN(), 1}, []bool{false, true}},
	} {
		if got := stats.Accept(tc.ref, 2); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
