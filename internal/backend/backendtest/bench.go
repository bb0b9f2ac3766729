package backendtest

import (
	"testing"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// Bench measures the operations users wait for.
func Bench(b *testing.B, subject Subject) {
	s := begin(b, subject)
	defer func() {
		if err := s.b.Close(); err != nil {
			b.Errorf("Close: %v", err)
		}
	}()
	image := s.spec(b).Image
	with := func(sp *backend.Spec) { sp.Image = image }
	echo := backend.ExecSpec{Args: []string{"true"}}

	b.Run("CreateFirstExec", func(b *testing.B) {
		for b.Loop() {
			m := s.made(b, with)
			s.exec(b, m, echo)
			b.StopTimer()
			s.unmade(b, m)
			b.StartTimer()
		}
	})
	b.Run("Destroy", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			m := s.made(b, with)
			b.StartTimer()
			s.unmade(b, m)
		}
	})
	b.Run("Exec", func(b *testing.B) {
		m := s.machine(b, with)
		for b.Loop() {
			s.exec(b, m, echo)
		}
	})
	if s.can(backend.CapMetrics) {
		b.Run("Stats", func(b *testing.B) {
			m := s.machine(b, with)
			for b.Loop() {
				stats(b, m)
			}
		})
	}
	restorer, ok := backend.As[backend.Restorer](s.b)
	if !ok || !s.can(backend.CapSnapshot) || !s.can(backend.CapRestore) {
		return
	}
	b.Run("Snapshot", func(b *testing.B) {
		m := s.machine(b, with)
		sn, _ := backend.As[backend.Snapshotter](m)
		for b.Loop() {
			b.StopTimer()
			dir := b.TempDir()
			b.StartTimer()
			v, err := sn.Snapshot(soon(b), dir)
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := restorer.Discard(soon(b), dir, v); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("RestoreFirstExec", func(b *testing.B) {
		m := s.machine(b, with)
		sn, _ := backend.As[backend.Snapshotter](m)
		dir := b.TempDir()
		v, err := sn.Snapshot(soon(b), dir)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			r, err := restorer.Restore(soon(b), s.spec(b, with), dir, v)
			if err != nil {
				b.Fatal(err)
			}
			s.exec(b, r, echo)
			b.StopTimer()
			s.unmade(b, r)
			b.StartTimer()
		}
		if err := restorer.Discard(soon(b), dir, v); err != nil {
			b.Fatal(err)
		}
	})
}

// made makes a machine that the caller destroys.
func (s *suite) made(b *testing.B, change ...func(*backend.Spec)) backend.Machine {
	b.Helper()
	m, err := s.b.Create(soon(b), s.spec(b, change...))
	if err != nil {
		b.Fatal(err)
	}
	return m
}

func (s *suite) unmade(b *testing.B, m backend.Machine) {
	b.Helper()
	if err := m.Destroy(soon(b)); err != nil {
		b.Fatal(err)
	}
}
