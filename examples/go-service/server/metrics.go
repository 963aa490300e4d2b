package server

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// metrics holds the service's own counters. Those of package df11 come from [df11.WriteMetrics].
type metrics struct {
	start    time.Time
	inFlight atomic.Int64
	panics   atomic.Uint64
	rejected atomic.Uint64
	evicted  atomic.Uint64

	hashes       atomic.Uint64
	hashNanos    atomic.Int64
	hashFailures atomic.Uint64

	lock      sync.Mutex
	requests  map[requestKey]uint64
	bodyBytes [routes]uint64
	ended     [routes][ends]uint64
	durations [routes]histogram
}

// requestKey has few values, whatever clients send: all unknown methods are one.
type requestKey struct {
	route  route
	method string
	status int
}

// bounds are the upper ends of the histogram's buckets, in seconds.
var bounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

type histogram struct {
	classes [len(bounds) + 1]uint64 // not cumulative; the last has no upper end
	seconds float64
}

// request counts a request that has ended.
func (m *metrics) request(to route, method string, w *recorder, took time.Duration) {
	if method != "GET" && method != "HEAD" {
		method = "other"
	}
	seconds := took.Seconds()
	class := 0
	for class < len(bounds) && seconds > bounds[class] {
		class++
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.requests == nil {
		m.requests = map[requestKey]uint64{}
	}
	m.requests[requestKey{to, method, w.status}]++
	m.bodyBytes[to] += uint64(w.wrote)
	m.ended[to][w.end]++
	m.durations[to].classes[class]++
	m.durations[to].seconds += seconds
}

// hashed counts one digest.
func (m *metrics) hashed(took time.Duration) {
	m.hashes.Add(1)
	m.hashNanos.Add(int64(took))
}

// text writes the text format of Prometheus.
type text struct{ w io.Writer }

func (t text) head(name, kind, help string) {
	fmt.Fprintf(t.w, "# HELP df11_service_%s %s\n# TYPE df11_service_%s %s\n", name, help, name, kind)
}

// value writes one sample. labels are pairs of a name and a value.
func (t text) value(name string, value float64, labels ...string) {
	io.WriteString(t.w, "df11_service_"+name)
	for i := 0; i < len(labels); i += 2 {
		fmt.Fprintf(t.w, "%s%s=%q", [2]string{"{", ","}[min(i, 1)], labels[i], labels[i+1])
	}
	if len(labels) > 0 {
		io.WriteString(t.w, "}")
	}
	io.WriteString(t.w, " "+strconv.FormatFloat(value, 'g', -1, 64)+"\n")
}

func (t text) one(name, kind, help string, value float64) {
	t.head(name, kind, help)
	t.value(name, value)
}

func (s *Server) writeMetrics(w io.Writer) {
	t, m, h := text{w}, &s.metrics, s.health.report()

	t.head("state", "gauge", "1 for the state that the model is in, 0 for the others.")
	for _, name := range stateNames {
		value := 0.0
		if name == h.State {
			value = 1
		}
		t.value("state", value, "state", name)
	}
	t.one("verified_bytes", "gauge", "Bytes that the running step of the verification has done.", float64(h.Done))
	t.one("to_verify_bytes", "gauge",
		"Bytes that the running step of the verification has to do; 0 until that is known.", float64(h.Total))
	t.one("open_attempts_total", "counter", "How often the model was opened, with success or without.",
		float64(h.Attempts))

	m.lock.Lock()
	t.head("requests_total", "counter",
		"Requests that have ended; code 499 for clients that went before there was one.")
	keys := make([]requestKey, 0, len(m.requests))
	for key := range m.requests {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b requestKey) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	for _, key := range keys {
		t.value("requests_total", float64(m.requests[key]), "route", routeNames[key.route], "method", key.method,
			"code", strconv.Itoa(key.status))
	}
	t.head("body_bytes_total", "counter", "Bytes of bodies that were handed to the system.")
	for i, bytes := range m.bodyBytes {
		t.value("body_bytes_total", float64(bytes), "route", routeNames[i])
	}
	t.head("ended_total", "counter", "Requests by how they ended.")
	for i, counts := range m.ended {
		for j, n := range counts {
			if n > 0 || route(i) == routeTensor {
				t.value("ended_total", float64(n), "route", routeNames[i], "end", endNames[j])
			}
		}
	}
	t.head("request_seconds", "histogram", "How long requests took, with sending the body.")
	for i := range m.durations {
		count := uint64(0)
		for class, n := range m.durations[i].classes {
			bound := "+Inf"
			if class < len(bounds) {
				bound = strconv.FormatFloat(bounds[class], 'g', -1, 64)
			}
			count += n
			t.value("request_seconds_bucket", float64(count), "route", routeNames[i], "le", bound)
		}
		t.value("request_seconds_sum", m.durations[i].seconds, "route", routeNames[i])
		t.value("request_seconds_count", float64(count), "route", routeNames[i])
	}
	m.lock.Unlock()

	t.one("requests_in_flight", "gauge", "Requests that run, this one among them.", float64(m.inFlight.Load()))
	t.one("requests_waiting", "gauge", "Requests that wait for a buffer.", float64(s.pool.waiting.Load()))
	t.one("rejected_total", "counter", "Requests that got 503 because too many others had all buffers.",
		float64(m.rejected.Load()))
	t.one("buffers_used", "gauge", "Buffers through which bodies are being sent.", float64(s.pool.used()))
	t.one("buffers", "gauge", "Buffers that there may be.", float64(s.cfg.Streams))
	t.one("buffer_bytes", "gauge", "Bytes of a buffer.", float64(s.cfg.Chunk))
	t.one("decodes_running", "gauge", "Pieces that are being decoded.", float64(len(s.decodes)))

	all, idle := s.conns.count()
	t.head("connections", "gauge", "Connections, by whether they have a request.")
	t.value("connections", float64(all-idle), "state", "active")
	t.value("connections", float64(idle), "state", "idle")
	t.one("connections_evicted_total", "counter", "Connections that were closed because there were too many.",
		float64(m.evicted.Load()))

	t.one("hashes_total", "counter", "Groups and plain tensors that were hashed for ETags.", float64(m.hashes.Load()))
	t.one("hash_seconds_total", "counter", "Seconds that this took.", time.Duration(m.hashNanos.Load()).Seconds())
	t.one("hash_failures_total", "counter", "Of those, how many failed: a file could not be read, or has changed.",
		float64(m.hashFailures.Load()))
	t.one("panics_total", "counter", "Requests that met a bug of the service.", float64(m.panics.Load()))

	t.one("uptime_seconds", "gauge", "Seconds since the service began.",
		math.Round(time.Since(m.start).Seconds()*1e3)/1e3)
	t.one("goroutines", "gauge", "Goroutines that there are.", float64(runtime.NumGoroutine()))
	if bytes, ok := resident(); ok {
		t.one("resident_memory_bytes", "gauge", "Memory of the process that is in RAM.", float64(bytes))
	}
}

// resident returns the size of the process in RAM, if the system reports it as Linux does.
func resident() (uint64, bool) {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	var size, pages uint64
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		return 0, false
	}
	return pages * uint64(os.Getpagesize()), true
}
