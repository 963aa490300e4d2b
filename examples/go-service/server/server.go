package server

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

// Server serves one model. It is an http.Handler and has no listener. Run adds one, and the lifecycle of a service.
type Server struct {
	cfg     Config
	log     *slog.Logger
	health  health
	catalog atomic.Pointer[catalog] // nil until the model is open
	pool    *pool
	decodes chan struct{}
	conns   *conns
	metrics metrics

	// stop is cancelled at the end of the service. Then nothing waits any more, and requests end.
	stop   context.Context
	cancel context.CancelFunc
	// loaded is closed when load has returned.
	loaded  chan struct{}
	started atomic.Bool
}

// New makes a server. Start or Run begins its work.
func New(cfg Config) (*Server, error) {
	if cfg.Open == nil {
		cfg.Open = Open
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		log:     cfg.Logger,
		pool:    newPool(cfg.Streams, cfg.Chunk, cfg.Waiting, cfg.Wait),
		decodes: make(chan struct{}, cfg.Decodes),
		loaded:  make(chan struct{}),
	}
	s.stop, s.cancel = context.WithCancel(context.Background())
	s.conns = newConns(cfg.Connections, &s.metrics)
	s.metrics.start = time.Now()
	return s, nil
}

// Start begins to open the model in the background.
func (s *Server) Start() {
	if s.started.Swap(true) {
		return
	}
	go func() {
		defer close(s.loaded)
		s.load(s.stop)
	}()
}

// Health returns the answer of /readyz.
func (s *Server) Health() Health { return s.health.report() }

// Close ends running work, and closes the model when nothing uses it any more. Later requests get 503.
func (s *Server) Close() {
	s.health.enter(Closing, "", nil)
	s.cancel()
	if s.started.Load() {
		<-s.loaded
	}
	if c := s.catalog.Swap(nil); c != nil {
		c.close()
	}
}

// ServeHTTP answers one request, and records it.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w := &recorder{
		ResponseWriter: rw, bare: r.Method == http.MethodHead, limit: s.cfg.WriteTimeout,
		stopped: func() bool { return s.stop.Err() != nil },
	}
	// A request also ends with the service.
	ctx, cancel := context.WithCancel(r.Context())
	defer context.AfterFunc(s.stop, cancel)()
	defer cancel()
	r = r.WithContext(ctx)

	to := find(r.URL.EscapedPath())
	s.metrics.inFlight.Add(1)
	defer func() {
		failure := recover()
		if failure != nil && failure != http.ErrAbortHandler {
			w.end = endFailed
			s.metrics.panics.Add(1)
			s.log.Error("a request met a bug of the service", "path", cut(r.URL.EscapedPath()), "panic", failure)
			if w.status == 0 {
				w.fail(http.StatusInternalServerError, "a bug of the service", "")
				failure = nil
			}
		}
		took := time.Since(start)
		s.metrics.request(to.route, r.Method, w, took)
		s.record(r, to.route, w, took)
		s.metrics.inFlight.Add(-1) // last, so that at 0 all other metrics are complete
		if failure != nil {
			panic(http.ErrAbortHandler) // net/http ends the connection, without a line in another log
		}
	}()
	s.answer(w, r, to)
}

// record logs a request. Probes and scrapes are logged at debug level.
func (s *Server) record(r *http.Request, to route, w *recorder, took time.Duration) {
	level := slog.LevelInfo
	if to == routeHealth || to == routeReady || to == routeMetrics {
		level = slog.LevelDebug
	}
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", cut(r.Method)), slog.String("path", cut(r.URL.EscapedPath())),
		slog.Int("status", w.status),
		slog.String("end", endNames[w.end]), slog.Int64("bytes", w.wrote), slog.Duration("took", took),
		slog.String("remote", r.RemoteAddr),
	}
	if asked := r.Header.Get("Range"); asked != "" {
		attrs = append(attrs, slog.String("range", cut(asked)))
	}
	if id := r.Header.Get("X-Request-Id"); id != "" {
		attrs = append(attrs, slog.String("request_id", cut(id)))
	}
	s.log.LogAttrs(context.Background(), level, "request", attrs...)
}
