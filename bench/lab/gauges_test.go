package lab

import (
	"maps"
	"strings"
	"testing"
)

func TestParseMetrics(t *testing.T) {
	got := parseMetrics(strings.NewReader(`# HELP go_goroutines Number of goroutines.
# TYPE go_goroutines gauge
go_goroutines 17
process_resident_memory_bytes 4.2e+07
fsb_sandboxes{state="running"} 3
broken
`))
	want := map[string]float64{"go_goroutines": 17, "process_resident_memory_bytes": 4.2e7}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseStatus(t *testing.T) {
	got := parseStatus(strings.NewReader("Name:\tfsbd\nVmRSS:\t   45120 kB\nRssAnon:\t 9000 kB\nThreads:\t9\nSigQ:\t0/96\n"))
	want := map[string]int64{"VmRSS": 45120, "RssAnon": 9000, "Threads": 9}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
