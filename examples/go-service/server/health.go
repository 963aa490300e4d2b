package server

import (
	"errors"
	"sync"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// State is what the service is doing about its model.
type State int

// The states, in the order in which a good model goes through them. From Failed the way leads back to Opening.
const (
	Opening State = iota
	Verifying
	Ready
	Failed
	Closing // the process was asked to end
)

var stateNames = [...]string{"opening", "verifying", "ready", "failed", "closing"}

// String is the state as /readyz and /metrics have it.
func (s State) String() string { return stateNames[s] }

// Health is what /readyz says.
type Health struct {
	State string `json:"state"`
	// Step is what Done and Total count, while the model is verified: "codes", then "hashes".
	Step string `json:"step,omitempty"`
	// Done and Total are bytes of the step; Total is 0 until it is known.
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
	// Error is why the model failed, in the library's words, and Status the name of its status, where it has one.
	Error  string `json:"error,omitempty"`
	Status string `json:"status,omitempty"`
	// Attempts is how often the model was opened, with success or without.
	Attempts int `json:"attempts"`
	// Seconds is how long the state lasts by now.
	Seconds float64 `json:"seconds"`
}

// health is the state and its progress. Any goroutine may ask and tell.
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

// enter changes the state. Once Closing, it stays so: false.
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

// progress says how far the step is that was entered last.
func (h *health) progress(done, total uint64) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.done, h.total = done, total
}

// report is all of it.
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

// statusName is the name of the library's status that an error has, or nothing.
func statusName(err error) string {
	var status df11.Status
	if errors.As(err, &status) {
		return status.String()
	}
	return ""
}
