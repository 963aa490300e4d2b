package server

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// end is how a request ended, for the figures.
type end int

const (
	endComplete end = iota // all of the answer was handed to the system
	endGone                // the client went away
	endSlow                // the client did not receive a piece in time
	endFailed              // what was asked for could not be decoded
	endStopped             // the service ended
	ends
)

var endNames = [ends]string{"complete", "client_gone", "client_slow", "failed", "stopped"}

// statusGone is what figures and log have for a client that went away before it got a status. It is never sent.
const statusGone = 499

// recorder knows what became of an answer.
type recorder struct {
	http.ResponseWriter
	status  int // 0 until there is one
	wrote   int64
	end     end
	bare    bool // the answer to a HEAD: what is written is not sent
	stopped func() bool
	limit   time.Duration // for the client to receive what is written in one go
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// begin gives the client its time to receive what is written next.
func (w *recorder) begin() {
	http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.limit))
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		// The time began with the request; it may have waited for a hash or a buffer since.
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

// gone ends an answer that nobody waits for any more: the client went, or the service ends. It may not return: then the
// connection ends without a word, where returning would send an answer with an empty body.
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

// problem is the body of every answer that is an error.
type problem struct {
	Error  string `json:"error"`
	Status string `json:"status,omitempty"` // the library's, where there is one
}

// fail answers with an error.
func (w *recorder) fail(status int, text, library string) { w.json(status, problem{text, library}) }

// later answers 503, and says after how many seconds to try again.
func (w *recorder) later(seconds int, text, library string) {
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	w.fail(http.StatusServiceUnavailable, text, library)
}

// json answers with a value as JSON, and takes back what headers say of another body.
func (w *recorder) json(status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // structs of ours: they have nothing that JSON has not
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
	w.Write(text) // to a HEAD nothing is sent
}
