package backend

import "slices"

// Names of capabilities, as GET /backends shows them.
const (
	CapExec     = "exec"
	CapPause    = "pause"
	CapSnapshot = "snapshot"
	CapRestore  = "restore"
	CapMetrics  = "metrics"
)

// Capabilities returns what b can do on this host: the method sets of the
// backend and of its machine type, less what Probe has masked.
func Capabilities(b Backend) []string {
	sample := b.Info().Sample
	var caps []string
	add := func(name string, ok bool) {
		if ok {
			caps = append(caps, name)
		}
	}
	_, exec := As[Execer](sample)
	_, pause := As[Pauser](sample)
	_, snapshot := As[Snapshotter](sample)
	_, restore := As[Restorer](b)
	_, stats := As[StatsReader](sample)
	add(CapExec, exec)
	add(CapPause, pause)
	add(CapSnapshot, snapshot)
	add(CapRestore, restore)
	add(CapMetrics, stats)
	if m, ok := As[Masker](b); ok {
		masked := m.Masked()
		caps = slices.DeleteFunc(caps, func(c string) bool { return slices.Contains(masked, c) })
	}
	return caps
}

// As returns v as a T: v itself, or what it wraps, following Unwrap methods
// that return any. It is errors.As for backends, so that a decorator need not
// repeat the optional methods of what it decorates.
func As[T any](v any) (T, bool) {
	for v != nil {
		if t, ok := v.(T); ok {
			return t, true
		}
		u, ok := v.(interface{ Unwrap() any })
		if !ok {
			break
		}
		v = u.Unwrap()
	}
	var zero T
	return zero, false
}
