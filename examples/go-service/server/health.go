package server

import (
	"errors"
	"sync"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// State is the state of the service's model.
type State int

// The states, in the order in which a good model passes through them. Failed may be followed by Opening.
const (
	Opening State = iota
	Verifying
	Ready
	Failed
	Closing // the process received a signal
)

var stateNames = [...]string{"opening", "verifying", "ready", "failed", "closing"}

// String returns the state's name in /readyz and /metrics.
func (s State) String() string { return stateNames[s] }

// Health is the answer of /readyz.
type Health struct {
	State string `json:"state"`
	// Step is the step of the verification that Done and Total count: "codes", then "hashes".
	Step string `json:"step,omitempty"`
	// Done and Total are bytes of the step; Total is 0 until it is known.
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
	// Error is the library's message about a failed model, and Status the name of its status, if it has one.
	Error  string `json:"error,omitempty"`
	Status string `json:"status,omitempty"`
	// Attempts is the number of attempts to open the model, including failed ones.
	Attempts int `json:"attempts"`
	// Seconds is the duration of the current state.
	Seconds float64 `json:"seconds"`
}

// health holds the state and its progress. Any goroutine may read and change it.
type health struct {
	lock     sync.Mutex
	state    State
	step     string
	done     uint64
	total    uint64
	err      error
	attempts int
	since    time.Time
}

// enter changes the state. It returns false after Closing, which is final.
func (h *health) enter(s State, step string, err error) bool {
	h.lock.Lock()
	defer h.lock.Unlock()
	if h.state == Closing {
		return false
	}
	if s == Opening {
		h.attempts++
	}
	if s != h.state || h.since.IsZero() {
		h.since = time.Now()
	}
	h.state, h.step, h.err, h.done, h.total = s, step, err, 0, 0
	return true
}

// progress sets the progress of the current step.
func (h *health) progress(done, total uint64) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.done, h.total = done, total
}

// report returns the state and its progress.
func (h *health) report() Health {
	h.lock.Lock()
	defer h.lock.Unlock()
	r := Health{State: h.state.String(), Step: h.step, Done: h.done, Total: h.total, Attempts: h.attempts}
	if !h.since.IsZero() {
		r.Seconds = time.Since(h.since).Seconds()
	}
	if h.err != nil {
		r.Error, r.Status = h.err.Error(), statusName(h.err)
	}
	return r
}

// statusName returns the name of an error's status of the library, or "".
func statusName(err error) string {
	var status df11.Status
	if errors.As(err, &status) {
		return status.String()
	}
	return ""
}
