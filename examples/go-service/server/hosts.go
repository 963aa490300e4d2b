package server

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// hostAllowed guards what listens on loopback only from a web page that a browser on the same machine shows: a page
// whose name its owner suddenly has lead to 127.0.0.1 (DNS rebinding) could read all answers as its own. Such a request
// names the page's host; honest ones name an address, localhost, or what Config.Hosts has. Whoever listens elsewhere
// has decided who may reach it, and any name is right there.
func (s *Server) hostAllowed(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !loopback(local) {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "" || host == "localhost" || slices.Contains(s.cfg.Hosts, "*") {
		return true // browsers always send a name
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true // an address leads where it says
	}
	return slices.ContainsFunc(s.cfg.Hosts, func(one string) bool { return strings.EqualFold(one, host) })
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
