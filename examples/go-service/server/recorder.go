package server

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// end is the way in which a request ended, for the metrics.
type end int

const (
	endComplete end = iota // the whole answer was passed to the system
	endGone                // the client went away
	endSlow                // the client did not receive a piece in time
	endFailed              // the tensor could not be decoded
	endStopped             // the service ended
	ends
)

var endNames = [ends]string{"complete", "client_gone", "client_slow", "failed", "stopped"}

// statusGone is the status in metrics and log for a client that went away before it got a status. It is never sent.
const statusGone = 499

// recorder records how an answer ended.
type recorder struct {
	http.ResponseWriter
	status  int // 0 until there is one
	wrote   int64
	end     end
	bare    bool // the answer to a HEAD: its body is not sent
	stopped func() bool
	limit   time.Duration // for the client to receive one piece
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// begin starts the time in which the client must receive the next piece.
func (w *recorder) begin() {
	http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.limit))
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		// The old deadline began with the request, which may have waited for a hash or a buffer since.
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
		w.begin()
	}
	n, err := w.ResponseWriter.Write(b)
	if !w.bare {
		w.wrote += int64(n)
	}
	return n, err
}

// gone ends an answer for which nobody waits any more, because the client went away or the service ends. It may not
// return: then the connection ends without an answer, because a return would send one with an empty body.
func (w *recorder) gone() {
	begun := w.status != 0
	switch {
	case w.stopped():
		w.end = endStopped
		if !begun {
			w.later(1, "the service is closing", "")
		}
	case begun:
		w.end = endGone
	default:
		w.end, w.status = endGone, statusGone
		panic(http.ErrAbortHandler)
	}
}

// problem is the body of every error.
type problem struct {
	Error  string `json:"error"`
	Status string `json:"status,omitempty"` // the library's, if there is one
}

// fail answers with an error.
func (w *recorder) fail(status int, text, library string) { w.json(status, problem{text, library}) }

// later answers 503 with the number of seconds after which to try again.
func (w *recorder) later(seconds int, text, library string) {
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	w.fail(http.StatusServiceUnavailable, text, library)
}

// json answers with a value as JSON, and removes the headers of another body.
func (w *recorder) json(status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // cannot happen: JSON can represent all our structs
	}
	text = append(text, '\n')
	h := w.Header()
	for _, name := range []string{"ETag", "DF11-DType", "DF11-Shape", "Accept-Ranges"} {
		h.Del(name)
	}
	if status != http.StatusRequestedRangeNotSatisfiable {
		h.Del("Content-Range")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	w.Write(text) // not sent for HEAD
}
