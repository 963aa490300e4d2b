package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// Run serves on a listener until ctx ends, and then shuts down gracefully. /readyz answers 503 while requests are still
// accepted for a time (Config.Drain). Then no connections are accepted, and running requests have Config.Shutdown to
// end. Then they are cut off, and the model is closed. The error is nil if nothing was cut off and the listener did not
// fail.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	web := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		// For one piece; longer bodies extend it (Server.stream). There is no ReadTimeout: it would end long answers,
		// and no request body is read.
		WriteTimeout:   s.cfg.WriteTimeout,
		MaxHeaderBytes: 16 << 10,
		ConnState:      s.conns.hook,
		// "OPTIONS *" is an ordinary request: Server answers and counts it.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	s.log.Info("listening", "address", l.Addr().String(), "model", s.cfg.Model, "libdf11", df11.Version())
	s.Start()
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()

	var failure error
	select {
	case failure = <-served:
		s.log.Error("the listener failed", "error", failure)
	case <-ctx.Done():
		s.health.enter(Closing, "", nil)
		s.log.Info("closing", "drain", s.cfg.Drain, "limit", s.cfg.Shutdown)
	}
	s.health.enter(Closing, "", nil)
	if failure == nil && s.cfg.Drain > 0 {
		select {
		case <-time.After(s.cfg.Drain):
		case failure = <-served:
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), s.cfg.Shutdown)
	defer cancel()
	if err := web.Shutdown(limit); err != nil {
		s.log.Warn("requests are cut off", "running", s.metrics.inFlight.Load())
		s.cancel() // requests notice it between two pieces
		web.Close()
		failure = errors.Join(failure, err)
	}
	s.settle(time.Second)
	s.Close()
	s.log.Info("closed", "models_open", df11.Stats().ModelsOpen, "requests_running", s.metrics.inFlight.Load())
	return failure
}

// settle waits a moment until requests that were cut off have ended.
func (s *Server) settle(most time.Duration) {
	for end := time.Now().Add(most); s.metrics.inFlight.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}
