package inuse

import (
	"net/netip"

	"example.com/reuse/internal/semantics"
)

// A row is a socket as a library for many systems tells of it.
type row struct {
	ipv6                  bool
	local, remote         string // "*" or "" for none or a wildcard
	localPort, remotePort uint32
	state                 string
	pid                   int
}

// holder makes a Holder of a row. ok is false if it has no address that can be read.
func (r row) holder(p semantics.Proto) (h Holder, ok bool) {
	local, ok := r.address(r.local)
	if !ok || r.localPort == 0 || r.localPort > 0xffff {
		return h, false
	}
	h = Holder{
		Network: networkOf(p, local, false),
		Local:   netip.AddrPortFrom(local, uint16(r.localPort)),
		State:   r.state,
		UID:     -1,
		PID:     max(r.pid, 0),
	}
	if remote, ok := r.address(r.remote); ok && r.remotePort > 0 && r.remotePort <= 0xffff {
		h.Remote = netip.AddrPortFrom(remote, uint16(r.remotePort))
	}
	switch r.state {
	case "LISTENING":
		h.State = listen
	case "FIN_WAIT_1":
		h.State = "FIN_WAIT1"
	case "FIN_WAIT_2":
		h.State = finWait2
	case "", "NONE", "CLOSED", "CLOSE":
		h.State = bound
	}
	if p == semantics.UDP {
		if h.State = bound; h.Remote.IsValid() {
			h.State = connected
		}
	}
	h.orphan = h.State == timeWait && h.PID == 0
	return h, true
}

func (r row) address(s string) (netip.Addr, bool) {
	if s == "*" || s == "" {
		if r.ipv6 {
			return netip.IPv6Unspecified(), true
		}
		return netip.IPv4Unspecified(), true
	}
	ip, err := netip.ParseAddr(s)
	return ip.Unmap(), err == nil
}
