package unpack

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkUnpack unpacks the gzipped layers that FSB_BENCH_LAYERS lists,
// separated by colons.
func BenchmarkUnpack(b *testing.B) {
	list := filepath.SplitList(os.Getenv("FSB_BENCH_LAYERS"))
	if len(list) == 0 {
		b.Skip("FSB_BENCH_LAYERS names no layers")
	}
	var tars [][]byte
	for _, p := range list {
		data, err := os.ReadFile(p)
		if err != nil {
			b.Fatal(err)
		}
		tars = append(tars, data)
	}
	for b.Loop() {
		dir, err := os.MkdirTemp(b.TempDir(), "")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := unpackAll(dir, Options{}, tars...); err != nil {
			b.Fatal(err)
		}
	}
}
