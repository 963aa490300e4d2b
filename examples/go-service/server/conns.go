package server

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// conns bounds how many connections there are. Who may go is who has no request running: a connection that has sent
// none yet, only a part of one, or that is kept for the next one. When there are too many, the one that has been so for
// longest is closed; if each has a request, the new one is. So a crowd of idle connections keeps nobody out.
type conns struct {
	most    int
	metrics *metrics

	lock sync.Mutex
	// Every connection that is not to be closed, with its place in idle; nil while a request runs.
	all  map[net.Conn]*list.Element
	idle *list.List // of net.Conn, the longest first
}

func newConns(most int, metrics *metrics) *conns {
	return &conns{most: most, metrics: metrics, all: map[net.Conn]*list.Element{}, idle: list.New()}
}

// hook is for http.Server.ConnState.
func (c *conns) hook(conn net.Conn, state http.ConnState) {
	if out := c.note(conn, state); out != nil {
		c.metrics.evicted.Add(1)
		out.Close() // its goroutine then says that it is closed
	}
}

// note keeps the books, and says which connection is to be closed, if one is.
func (c *conns) note(conn net.Conn, state http.ConnState) net.Conn {
	c.lock.Lock()
	defer c.lock.Unlock()
	at, known := c.all[conn]
	if !known && state != http.StateNew {
		return nil // on its way out
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

// count is how many connections there are, and how many of them have no request.
func (c *conns) count() (all, idle int) {
	c.lock.Lock()
	defer c.lock.Unlock()
	return len(c.all), c.idle.Len()
}
