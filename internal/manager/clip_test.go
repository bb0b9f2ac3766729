package manager

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestClipKeepsHeadAndTail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := 2 * rapid.IntRange(1, 40).Draw(t, "half")
		c := newClip(limit)
		var all []byte
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "p")
			all = append(all, p...)
			if n, err := c.Write(p); n != len(p) || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
		}
		got, dropped := c.result()
		if len(all) <= limit {
			if dropped != 0 || !bytes.Equal(got, all) {
				t.Fatalf("kept %q of %q", got, all)
			}
			return
		}
		if want := int64(len(all) - limit); dropped != want {
			t.Fatalf("dropped %d, want %d", dropped, want)
		}
		mark := fmt.Sprintf("\n[... %d bytes dropped here ...]\n", dropped)
		want := string(all[:limit/2]) + mark + string(all[len(all)-limit/2:])
		if string(got) != want || !strings.Contains(string(got), mark) {
			t.Fatalf("kept %q, want %q", got, want)
		}
	})
}
