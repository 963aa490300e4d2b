package server

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// serveTensor answers GET and HEAD for a tensor's values. An answer without a body, such as a 304, decodes nothing, and
// waits only for the hash if that is not known yet.
func (s *Server) serveTensor(w *recorder, r *http.Request, c *catalog, name string) {
	i, ok := c.byName[name]
	if !ok {
		w.fail(http.StatusNotFound, "there is no tensor of that name", "")
		return
	}
	t := &c.tensors[i]
	etag, err := c.etag(r.Context(), t)
	if err != nil {
		w.gone()
		return
	}
	a := decide(r, etag, t.DataBytes)
	h := w.Header()
	h.Set("DF11-DType", t.DType.String())
	h.Set("DF11-Shape", shapeText(t.Shape))
	h.Set("Content-Type", "application/octet-stream")
	if !head(w, r, a, etag, t.DataBytes) {
		return
	}
	s.stream(w, r, a, func(part span, buffer []byte) ([]byte, error) { return c.read(t, part, buffer) })
}

// head writes the headers of a body of size bytes. It returns false if it has answered the request, because there is no
// body to send.
func head(w *recorder, r *http.Request, a answer, etag string, size uint64) bool {
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	// The next start may serve another model: caches must ask, and usually get 304.
	h.Set("Cache-Control", "no-cache")
	if etag != "" {
		h.Set("ETag", etag)
	}
	switch a.status {
	case http.StatusNotModified:
		h.Del("Content-Type")
		w.WriteHeader(a.status)
		return false
	case http.StatusPreconditionFailed:
		w.fail(a.status, "the tensor is not the one that If-Match names", "")
		return false
	case http.StatusRequestedRangeNotSatisfiable:
		h.Set("Content-Range", "bytes */"+strconv.FormatUint(size, 10))
		w.fail(a.status, "the range is malformed or outside of the tensor", "")
		return false
	case http.StatusPartialContent:
		h.Set("Content-Range", "bytes "+strconv.FormatUint(a.body.first, 10)+"-"+
			strconv.FormatUint(a.body.first+a.body.length-1, 10)+"/"+strconv.FormatUint(size, 10))
	}
	h.Set("Content-Length", strconv.FormatUint(a.body.length, 10))
	if r.Method == http.MethodHead || a.body.length == 0 {
		w.WriteHeader(a.status)
		return false
	}
	return true
}

// stream decodes and sends a body piece by piece, through one buffer of the pool. The first piece is decoded before the
// status is sent, so that a tensor that cannot be decoded gets an error status. A piece that fails later ends the
// connection, which no client can mistake for the end of the body. Between two pieces it checks whether the client is
// still there.
func (s *Server) stream(w *recorder, r *http.Request, a answer, make func(part span, buffer []byte) ([]byte, error)) {
	ctx := r.Context()
	buffer, err := s.pool.take(ctx)
	if errors.Is(err, errBusy) {
		s.metrics.rejected.Add(1)
		w.later(1, "too many tensors are being sent", "")
		return
	} else if err != nil {
		w.gone()
		return
	}
	defer s.pool.give(buffer)

	for rest := a.body; rest.length > 0; {
		// One more byte may be decoded at the front, and one at the end of every piece except the last: see
		// catalog.read.
		part := span{rest.first, min(rest.length, uint64(len(buffer))-rest.first%2)}
		bytes, err := s.decode(ctx, func() ([]byte, error) { return make(part, buffer) })
		if err != nil {
			s.broken(w, r, err)
			return
		}
		if w.status == 0 {
			w.WriteHeader(a.status)
		}
		// Every piece has its own deadline: a large tensor may take long, but a client must keep receiving.
		w.begin()
		if _, err := w.Write(bytes); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				w.end = endSlow
			} else {
				w.gone()
			}
			return
		}
		rest = span{rest.first + part.length, rest.length - part.length}
	}
}

// decode calls make when fewer than Config.Decodes pieces are being decoded, or fails with ctx's error.
func (s *Server) decode(ctx context.Context, make func() ([]byte, error)) ([]byte, error) {
	select {
	case s.decodes <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.decodes }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return make()
}

// broken answers for a piece that could not be decoded.
func (s *Server) broken(w *recorder, r *http.Request, err error) {
	begun := w.status != 0
	switch {
	case r.Context().Err() != nil:
		w.gone()
		return
	case errors.Is(err, fs.ErrClosed):
		w.end = endStopped
		if !begun {
			w.later(1, "the service is closing", "")
		}
	default:
		w.end = endFailed
		s.log.Error("a tensor cannot be decoded", "path", cut(r.URL.EscapedPath()), "error", err, "status",
			statusName(err))
		if !begun && errors.Is(err, df11.ErrOutOfMemory) {
			w.later(5, err.Error(), statusName(err))
		} else if !begun {
			w.fail(http.StatusInternalServerError, err.Error(), statusName(err))
		}
	}
	// A body that has begun is shorter than its Content-Length: net/http ends the connection, so that the client
	// notices.
}

// shapeText returns a shape as JSON.
func shapeText(shape []uint64) string {
	b := []byte{'['}
	for i, n := range shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, n, 10)
	}
	return string(append(b, ']'))
}

// cut shortens a client's text for the log.
func cut(text string) string {
	const most = 256
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
