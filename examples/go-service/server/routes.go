package server

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// route is a kind of request, for the metrics.
type route int

const (
	routeOther route = iota
	routeHealth
	routeReady
	routeMetrics
	routeGroups
	routeTensors
	routeTensor
	routes
)

var routeNames = [routes]string{"other", "healthz", "readyz", "metrics", "groups", "tensors", "tensor"}

// target is the meaning of a path.
type target struct {
	route route
	name  string // of the tensor
}

// find interprets a path in its escaped form. http.ServeMux is not suitable: it redirects paths with dots and doubled
// slashes, which a tensor's name may contain. Names are never looked up in a file system.
func find(escaped string) target {
	switch escaped {
	case "/healthz":
		return target{route: routeHealth}
	case "/readyz":
		return target{route: routeReady}
	case "/metrics":
		return target{route: routeMetrics}
	case "/v1/groups":
		return target{route: routeGroups}
	case "/v1/tensors":
		return target{route: routeTensors}
	}
	if name, ok := strings.CutPrefix(escaped, tensorPath); ok {
		if name, err := url.PathUnescape(name); err == nil {
			return target{routeTensor, name}
		}
	}
	return target{}
}

// answer answers a request, without recording it.
func (s *Server) answer(w *recorder, r *http.Request, to target) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !s.hostAllowed(r) {
		w.fail(http.StatusMisdirectedRequest, "the service has another name; -hosts gives it more", "")
		return
	}
	if r.ContentLength != 0 {
		// No route takes a body. It is not read, because its sender would decide when that ends. While a body is
		// unread, net/http does not notice that a client goes away either.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
		w.Header().Set("Connection", "close")
		w.fail(http.StatusRequestEntityTooLarge, "requests here have no body", "")
		return
	}
	if to.route == routeOther {
		w.fail(http.StatusNotFound,
			"there is /healthz, /readyz, /metrics, /v1/groups, /v1/tensors and /v1/tensors/NAME", "")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.fail(http.StatusMethodNotAllowed, "only GET and HEAD", "")
		return
	}
	switch to.route {
	case routeHealth:
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, "ok\n")
		return
	case routeReady:
		s.serveReady(w)
		return
	case routeMetrics:
		s.serveMetrics(w)
		return
	}
	c := s.catalog.Load()
	if c == nil {
		s.serveUnready(w)
		return
	}
	switch to.route {
	case routeGroups:
		s.serveDocument(w, r, c.groupList)
	case routeTensors:
		s.serveDocument(w, r, c.tensorList)
	case routeTensor:
		s.serveTensor(w, r, c, to.name)
	}
}

// serveReady reports whether the model is ready for requests.
func (s *Server) serveReady(w *recorder) {
	h := s.health.report()
	status := http.StatusOK
	if h.State != Ready.String() {
		status = http.StatusServiceUnavailable
	}
	w.json(status, h)
}

// serveUnready answers while the model is not open.
func (s *Server) serveUnready(w *recorder) {
	if h := s.health.report(); h.Error != "" {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(s.cfg.Retry.Seconds()))))
		w.json(http.StatusServiceUnavailable, h)
	} else {
		w.Header().Set("Retry-After", "1")
		w.json(http.StatusServiceUnavailable, h)
	}
}

// serveMetrics writes the metrics of package df11 and of the service in the text format of Prometheus.
func (s *Server) serveMetrics(w *recorder) {
	var b bytes.Buffer
	if err := df11.WriteMetrics(&b); err != nil {
		w.fail(http.StatusInternalServerError, err.Error(), statusName(err))
		return
	}
	s.writeMetrics(&b)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.Write(b.Bytes())
}

// serveDocument sends a listing, with conditions and ranges as for tensors.
func (s *Server) serveDocument(w *recorder, r *http.Request, d document) {
	w.Header().Set("Content-Type", "application/json")
	a := decide(r, d.etag, uint64(len(d.bytes)))
	if !head(w, r, a, d.etag, uint64(len(d.bytes))) {
		return
	}
	w.WriteHeader(a.status)
	for rest := d.bytes[a.body.first:][:a.body.length]; len(rest) > 0; {
		n := min(len(rest), s.cfg.Chunk)
		w.begin()
		if _, err := w.Write(rest[:n]); err != nil || r.Context().Err() != nil {
			w.gone()
			return
		}
		rest = rest[n:]
	}
}
