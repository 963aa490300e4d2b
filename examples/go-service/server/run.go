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

// Run serves on a listener until ctx ends, and then ends in order: /readyz says no, requests are still taken for a
// while (Config.Drain), then no more connections; those that run have Config.Shutdown to end; then they are cut off,
// and the model is closed. The error is nil if all of that was as it should be.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	web := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		// For what is written in one go; longer bodies move it on (Server.stream). There is no ReadTimeout: it would
		// end long answers, and no request has a body that is read.
		WriteTimeout:   s.cfg.WriteTimeout,
		MaxHeaderBytes: 16 << 10,
		ConnState:      s.conns.hook,
		// "OPTIONS *" is a request as any other: it is counted, and answered by Server.
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
		s.cancel() // they see it between two pieces
		web.Close()
		failure = errors.Join(failure, err)
	}
	s.settle(time.Second)
	s.Close()
	s.log.Info("closed", "models_open", df11.Stats().ModelsOpen, "requests_running", s.metrics.inFlight.Load())
	return failure
}

// settle waits a moment for requests that were cut off to have seen it.
func (s *Server) settle(most time.Duration) {
	for end := time.Now().Add(most); s.metrics.inFlight.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}
