package server

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// hostAllowed protects a service that listens on loopback only from web pages in a browser on the same machine. The
// owner of a page can let its name lead to 127.0.0.1 (DNS rebinding), and could then read all answers. Such a request
// has the page's name as its host. Legitimate requests have an address, localhost, or a name in Config.Hosts. A service
// that listens on other addresses accepts any name: whoever configured that has decided who may reach it.
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
		return true // an address cannot be rebound
	}
	return slices.ContainsFunc(s.cfg.Hosts, func(one string) bool { return strings.EqualFold(one, host) })
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
