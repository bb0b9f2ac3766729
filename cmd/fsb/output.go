package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// sandboxView is a sandbox as fsb prints it; the names are the wire's.
type sandboxView struct {
	ID         flash.ID          `json:"id"`
	Status     flash.State       `json:"status"`
	Backend    string            `json:"backend"`
	Image      string            `json:"image"`
	Digest     string            `json:"digest,omitempty"`
	Command    []string          `json:"command"`
	Env        map[string]string `json:"env,omitempty"`
	MemoryMB   int64             `json:"memory_mb"`
	CPUCores   float64           `json:"cpu_cores"`
	CreatedAt  time.Time         `json:"created_at,omitzero"`
	ReadyAt    time.Time         `json:"ready_at,omitzero"`
	Ending     *flash.Ending     `json:"ending,omitempty"`
	SnapshotID flash.ID          `json:"snapshot_id,omitempty"`
	Metadata   map[string]any    `json:"metadata,omitempty"`
}

func viewOf(s *flash.Sandbox) sandboxView {
	v := sandboxView{
		ID: s.ID, Status: s.State, Backend: s.Backend, Image: s.Image, Digest: s.Digest, Command: s.Command, Env: s.Env,
		MemoryMB: s.MemoryMB, CPUCores: s.CPUCores, CreatedAt: s.CreatedAt, ReadyAt: s.ReadyAt, Ending: s.Ending,
		SnapshotID: s.Restored, Metadata: s.Metadata,
	}
	if v.Command == nil {
		v.Command = []string{}
	}
	return v
}

// snapshotView is a snapshot as fsb prints it.
type snapshotView struct {
	ID           flash.ID  `json:"id"`
	SandboxID    flash.ID  `json:"sandbox_id"`
	Backend      string    `json:"backend"`
	SnapshotPath string    `json:"snapshot_path"`
	MemFilePath  string    `json:"mem_file_path"`
	Memory       bool      `json:"memory"`
	SizeBytes    int64     `json:"size_bytes"`
	Detail       string    `json:"detail,omitempty"`
	CreatedAt    time.Time `json:"created_at,omitzero"`
}

func snapshotViewOf(s *flash.Snapshot) snapshotView { return snapshotView(*s) }

// printJSON writes v indented, without escaping what is no danger here.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printTable writes rows below upper-case headings.
func (a *app) printTable(headings string, rows [][]string) error {
	tw := tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, strings.ReplaceAll(headings, " ", "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = plain(row[i])
		}
		_, _ = fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// pair is one line of printPairs.
type pair struct {
	key   string
	value any
}

// printPairs writes an object, a line for each member; empty texts are left out.
func (a *app) printPairs(pairs ...pair) error {
	tw := tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
	for _, p := range pairs {
		if text := plain(fmt.Sprint(p.value)); text != "" {
			_, _ = fmt.Fprintf(tw, "%s\t%s\n", p.key, text)
		}
	}
	return tw.Flush()
}

// plain replaces control characters, which would break a table or a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// size writes bytes for people.
func size(n int64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f /= step; f < step {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// shortDigest keeps enough of a digest to tell images apart.
func shortDigest(d string) string {
	d = strings.TrimPrefix(d, "sha256:")
	if len(d) > 12 {
		d = d[:12]
	}
	return d
}
