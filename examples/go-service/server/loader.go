package server

import (
	"context"
	"errors"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// load opens the model. If it cannot be read, load tries again after a while, until it is open or ctx ends.
func (s *Server) load(ctx context.Context) {
	for {
		start := time.Now()
		if !s.health.enter(Opening, "", nil) {
			return
		}
		c, err := s.open(ctx)
		switch {
		case err == nil:
			s.catalog.Store(c)
			s.health.enter(Ready, "", nil)
			s.log.Info("ready", "groups", len(c.model.Groups()), "tensors", len(c.tensors), "verified", s.cfg.Verify,
				"took", time.Since(start))
			return
		case ctx.Err() != nil:
			s.log.Info("stopped opening the model", "error", err)
			return
		}
		// A damaged model stays damaged, but a disk may come back, and a download may end.
		again := s.cfg.Retry > 0 && (errors.Is(err, df11.ErrIO) || errors.Is(err, errChanged))
		s.health.enter(Failed, "", err)
		s.log.Error("the model cannot be served", "error", err, "status", statusName(err), "again", again)
		if !again {
			return
		}
		select {
		case <-time.After(s.cfg.Retry):
		case <-ctx.Done():
			return
		}
	}
}

// open opens the model and, if Config.Verify is set, checks every byte of it.
func (s *Server) open(ctx context.Context) (*catalog, error) {
	files := look(s.cfg.Model)
	verifying := false
	m, err := s.cfg.Open(ctx, s.cfg.Model, &df11.Options{
		Verify:  s.cfg.Verify,
		Threads: s.cfg.VerifyThreads,
		NoMap:   !s.cfg.Map,
		Config:  s.cfg.ConfigJSON,
		Progress: func(done, total uint64) {
			if total > 0 && s.cfg.Verify && !verifying {
				verifying = s.health.enter(Verifying, "codes", nil)
				s.log.Info("verifying", "step", "codes", "bytes", total)
			}
			s.health.progress(done, total)
		},
	})
	if err != nil {
		return nil, err
	}
	d := newDigests(s.stop, m, files, s.log, &s.metrics)
	c, err := newCatalog(m, d)
	if err == nil && s.cfg.Verify {
		s.health.enter(Verifying, "hashes", nil)
		s.log.Info("verifying", "step", "hashes")
		err = d.all(ctx, s.health.progress)
	}
	if err != nil {
		d.close()
		m.Close()
		return nil, err
	}
	return c, nil
}

// close waits for work that still uses the model, which must have been stopped, and frees the model.
func (c *catalog) close() {
	c.digests.close()
	c.model.Close()
}
