package api_test

import (
	"io"
	"net/http"
	"testing"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// BenchmarkGet is GET /sandboxes/{id} on one pool of kept connections, the
// client included: published clients send it before each command.
func BenchmarkGet(b *testing.B) {
	m := openManager(b)
	sb, err := m.Create(b.Context(), flash.CreateOptions{Image: "busybox"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := m.Delete(b.Context(), sb.ID, flash.DeleteOptions{}); err != nil {
			b.Error(err)
		}
	}()
	srv := serve(b, m)
	rate := func(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s") }

	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	plain := &http.Client{Transport: transport}
	url := "http://" + srv.HTTPAddr() + "/sandboxes/" + string(sb.ID)
	get := func(b *testing.B) {
		resp, err := plain.Get(url)
		if err != nil {
			b.Error(err)
			return
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			b.Error(resp.StatusCode, err)
		}
		_ = resp.Body.Close()
	}
	b.Run("http", func(b *testing.B) {
		defer rate(b)
		for b.Loop() {
			get(b)
		}
	})
	b.Run("http-parallel", func(b *testing.B) {
		defer rate(b)
		b.SetParallelism(8)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				get(b)
			}
		})
	})
	c := restClient(b, srv.HTTPAddr())
	b.Run("client-parallel", func(b *testing.B) {
		defer rate(b)
		b.SetParallelism(8)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := c.Get(b.Context(), sb.ID); err != nil {
					b.Error(err)
				}
			}
		})
	})
	r := rpcClient(b, "http://"+srv.GRPCAddr())
	b.Run("grpc-parallel", func(b *testing.B) {
		defer rate(b)
		b.SetParallelism(8)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := r.Get(b.Context(), sb.ID); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
