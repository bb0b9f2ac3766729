package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
	"github.com/flash-sandbox/flash-sandbox/bench/peers"
	"github.com/flash-sandbox/flash-sandbox/bench/report"
)

// burstRound has each peer make many sandboxes at once.
func (b *bench) burstRound(ctx context.Context, r *report.Round) {
	for _, m := range b.shuffled() {
		if _, boxless := m.Peer.(peers.Boxless); boxless {
			continue
		}
		r.Order = append(r.Order, m.name)
		b.probe(ctx, r)
		b.burst(ctx, r, m)
		if ctx.Err() != nil {
			return
		}
	}
	b.probe(ctx, r)
}

// burst makes sandboxes, several at a time, each to its first output. The time
// of all is one sample, unless one of them failed. Deleting them is not in it.
func (b *bench) burst(ctx context.Context, r *report.Round, m member) {
	words := make(chan string, b.plan.burstSize)
	for range b.plan.burstSize {
		words <- b.word()
	}
	close(words)
	var mu sync.Mutex
	var boxes []peers.Box
	var errs []error

	began := time.Now()
	each(b.plan.burstWidth, func() {
		for word := range words {
			box, err := burstOne(ctx, m, word)
			mu.Lock()
			if box != nil {
				boxes = append(boxes, box)
			}
			if err != nil {
				errs = append(errs, err)
			}
			mu.Unlock()
		}
	})
	took := time.Since(began)
	if ctx.Err() == nil {
		for _, err := range errs {
			r.Samples = append(r.Samples, report.Sample{Peer: m.name, Op: report.Burst, Error: err.Error(), Lost: errors.Is(err, errLost)})
		}
		if len(errs) == 0 {
			r.Samples = append(r.Samples, report.Sample{Peer: m.name, Op: report.Burst, Value: milliseconds(took)})
		}
	}
	b.deleteAll(r, m.name, boxes)
}

func burstOne(ctx context.Context, m member, word string) (peers.Box, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	box, err := m.Create(ctx, lab.Busybox)
	if err != nil {
		return nil, err
	}
	return box, expect(word + "\n")(box.Exec(ctx, "echo", word))
}

// deleteAll deletes sandboxes, also after an interrupt.
func (b *bench) deleteAll(r *report.Round, peer string, boxes []peers.Box) {
	queue := make(chan peers.Box, len(boxes))
	for _, box := range boxes {
		queue <- box
	}
	close(queue)
	var mu sync.Mutex
	each(b.plan.burstWidth, func() {
		for box := range queue {
			ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
			err := box.Delete(ctx)
			cancel()
			if err != nil {
				mu.Lock()
				r.Samples = append(r.Samples, report.Sample{Peer: peer, Op: report.Delete, Error: fmt.Sprintf("after a burst: %v", err)})
				mu.Unlock()
			}
		}
	})
}

// each runs f n times at once and waits for all.
func each(n int, f func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(f)
	}
	wg.Wait()
}
