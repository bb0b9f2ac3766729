package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// numbers are the server's metrics. Labels are routes and codes, of which
// there are few, and never ids.
type numbers struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	errors   *prometheus.CounterVec
	running  prometheus.Gauge
}

func newNumbers(r prometheus.Registerer) *numbers {
	n := &numbers{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fsb_http_requests_total", Help: "Requests answered, by route and HTTP status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fsb_http_request_seconds", Help: "Time from the request's header to the end of the answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"route"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fsb_api_errors_total", Help: "Requests that failed, by route and error code; gRPC failures have HTTP status 200 and are seen only here.",
		}, []string{"route", "code"}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fsb_http_requests_running", Help: "Requests under way.",
		}),
	}
	r.MustRegister(n.requests, n.seconds, n.errors, n.running)
	return n
}

func (n *numbers) begin() { n.running.Inc() }

func (n *numbers) end(x *api.Exchange, status int, took time.Duration) {
	n.running.Dec()
	route := x.Route
	if route == "" {
		route = "other"
	}
	n.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	n.seconds.WithLabelValues(route).Observe(took.Seconds())
	if x.Err != nil {
		n.errors.WithLabelValues(route, string(flash.AsError(x.Err).Code)).Inc()
	}
}
