package server

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// conns limits the number of connections. A connection without a running request may be closed: one that has sent no
// request yet, or part of one, or that is kept for the next one. Beyond the limit, the connection that has been in that
// state for longest is closed; if all have a request, the new one is. So idle connections keep nobody out.
type conns struct {
	most    int
	metrics *metrics

	lock sync.Mutex
	// Every connection that is to stay open, with its place in idle; nil while a request runs.
	all  map[net.Conn]*list.Element
	idle *list.List // of net.Conn, the longest first
}

func newConns(most int, metrics *metrics) *conns {
	return &conns{most: most, metrics: metrics, all: map[net.Conn]*list.Element{}, idle: list.New()}
}

// hook is the function for http.Server.ConnState.
func (c *conns) hook(conn net.Conn, state http.ConnState) {
	if out := c.note(conn, state); out != nil {
		c.metrics.evicted.Add(1)
		out.Close() // its goroutine then reports that it is closed
	}
}

// note records a state, and returns the connection to close, if any.
func (c *conns) note(conn net.Conn, state http.ConnState) net.Conn {
	c.lock.Lock()
	defer c.lock.Unlock()
	at, known := c.all[conn]
	if !known && state != http.StateNew {
		return nil // being closed
	}
	if at != nil {
		c.idle.Remove(at)
	}
	switch state {
	case http.StateActive:
		c.all[conn] = nil
	case http.StateNew, http.StateIdle:
		c.all[conn] = c.idle.PushBack(conn)
	default:
		delete(c.all, conn)
	}
	if state != http.StateNew || len(c.all) <= c.most {
		return nil
	}
	first := c.idle.Front()
	out := c.idle.Remove(first).(net.Conn)
	delete(c.all, out)
	return out
}

// count returns the number of connections, and how many of them have no request.
func (c *conns) count() (all, idle int) {
	c.lock.Lock()
	defer c.lock.Unlock()
	return len(c.all), c.idle.Len()
}
