package inuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"example.com/reuse/internal/semantics"
)

// A Holder is a socket that overlaps an address.
type Holder struct {
	// Network is the one of package net that makes such a socket: "tcp4" or
	// "udp4" for an IPv4 address, "tcp6" or "udp6" for an IPv6 one, and "tcp" or
	// "udp" for a dual-stack ::. Where the system does not tell which, :: counts
	// as dual-stack. A Multipath TCP socket is a TCP one.
	Network string

	Local  netip.AddrPort // an IPv4-mapped address is given as IPv4
	Remote netip.AddrPort // zero: none

	// State is "LISTEN", "BOUND" (a TCP socket that does not listen, or an
	// unconnected UDP one), "CONNECTED" (a connected UDP socket), or TCP's name
	// for a connection: "ESTABLISHED", "TIME_WAIT", "CLOSE_WAIT", ...
	State string

	Device  string // the interface that the socket is bound to; "": none, or not told
	UID     int    // the socket's user, who need not be its process's; -1: not told
	PID     int    // a process that has the socket; 0: not visible to this user, or none has it
	Command string // of the process, as it named itself; may hold anything

	orphan bool // no process has it
}

// String describes the holder for a person, as in
// "pid 4211 (nginx), listening on 0.0.0.0:8080 (socket of uid 33)". It is harmless to
// print, whatever the command is called.
func (h Holder) String() string {
	s := h.who() + ", " + h.what()
	var about []string
	if h.State != listen && h.State != bound {
		about = append(about, printable(h.State))
	}
	if h.UID >= 0 {
		about = append(about, "socket of uid "+strconv.Itoa(h.UID))
	}
	if h.Device != "" {
		about = append(about, "on device "+printable(h.Device))
	}
	if len(about) > 0 {
		s += " (" + strings.Join(about, ", ") + ")"
	}
	return s
}

func (h Holder) who() string {
	var b strings.Builder
	switch {
	case h.PID == os.Getpid():
		b.WriteString("this process, pid " + strconv.Itoa(h.PID))
	case h.PID != 0:
		b.WriteString("pid " + strconv.Itoa(h.PID))
	case h.queued():
		b.WriteString("no process yet")
	case h.orphan:
		b.WriteString("no process any more")
	case os.Geteuid() == 0:
		b.WriteString("a process that has ended or is not visible")
	default:
		b.WriteString("a process that is not visible")
	}
	if h.Command != "" {
		b.WriteString(" (" + printable(h.Command) + ")")
	}
	return b.String()
}

// queued tells whether a connection waits to be accepted, maybe no longer wanted by
// its peer. One that its process has closed is in another state.
func (h Holder) queued() bool {
	return h.orphan && (h.State == "ESTABLISHED" || h.State == closeWait)
}

func (h Holder) what() string {
	switch h.State {
	case listen:
		return "listening on " + printable(h.Local.String())
	case bound:
		if h.proto() == semantics.UDP {
			return "bound to " + printable(h.Local.String())
		}
		return "bound to " + printable(h.Local.String()) + " and not listening"
	}
	s := "with a connection from " + printable(h.Local.String())
	if h.Remote.IsValid() {
		s += " to " + printable(h.Remote.String())
	}
	return s
}

func (h Holder) proto() semantics.Proto {
	if strings.HasPrefix(h.Network, "udp") {
		return semantics.UDP
	}
	return semantics.TCP
}

// v6only tells whether an unspecified IPv6 address is IPv6 only.
func (h Holder) v6only() bool { return strings.HasSuffix(h.Network, "6") }

// The names of states, apart from TCP's others.
const (
	listen    = "LISTEN"
	bound     = "BOUND"
	connected = "CONNECTED"
	timeWait  = "TIME_WAIT"
	finWait2  = "FIN_WAIT2"
	closeWait = "CLOSE_WAIT"
)

// Holders returns the sockets that overlap a local address, listening or not: those
// that the kernel looks at when another socket binds it. network is "tcp", "tcp4",
// "tcp6", "udp", "udp4" or "udp6", and address is what Listen would be given, so
// that ":8080" on "tcp" is dual-stack where package net makes it so. None is no
// error.
//
// The sockets are ordered by state, listening ones first, then by address. Of
// several processes that have one socket it names one, if possible of the socket's
// user, the one with the lowest PID.
//
// An IPv6 connection, of TCP or UDP, of a dual-stack socket is in the way of 0.0.0.0,
// too (measured on Linux). Linux does not tell which are, so there they all count.
//
// On Linux only the sockets of the caller's network namespace are seen, and before
// Linux 6.8 no TCP socket that is bound and neither listens nor is connected. Whose
// process it is can be seen of the caller's own processes, and by root.
//
// The error wraps [errors.ErrUnsupported] on systems that do not show sockets, and
// [os.ErrInvalid] for port 0, which no socket has.
func Holders(ctx context.Context, network, address string) ([]Holder, error) {
	t, err := resolve(ctx, network, address)
	if err == nil && t.local.Port() == 0 {
		err = fmt.Errorf("%w: port 0 is any free port", os.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("inuse: %w", err)
	}
	list, err := t.holders(ctx)
	if err != nil {
		return nil, fmt.Errorf("inuse: %w", err)
	}
	return list, nil
}

func (t target) holders(ctx context.Context) ([]Holder, error) {
	list, err := t.look(ctx)
	order(list)
	return list, err
}

// A target is what a socket binds, or would.
type target struct {
	proto  semantics.Proto
	local  netip.AddrPort
	v6only bool // if local is ::
}

// resolve finds out which address package net would bind.
func resolve(ctx context.Context, network, address string) (t target, err error) {
	kind, version := network, ""
	if n := len(network); n > 0 && (network[n-1] == '4' || network[n-1] == '6') {
		kind, version = network[:n-1], network[n-1:]
	}
	switch kind {
	case "tcp", "udp":
	case "ip", "unix", "unixgram", "unixpacket":
		return t, fmt.Errorf("%w: network %q has no ports", errors.ErrUnsupported, network)
	default:
		return t, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return t, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return t, err
	}
	var ip netip.Addr
	if host != "" {
		if ip, err = lookup(ctx, "ip"+version, host); err != nil {
			return t, err
		}
	}
	return bindTarget(network, ip, uint16(port))
}

// lookup returns the address that package net takes of a host: the first IPv4 one
// if there is one.
func lookup(ctx context.Context, network, host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil { // LookupNetIP loses the zone
		return named(ip.Unmap()), nil
	}
	list, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return netip.Addr{}, err
	}
	for i := range list {
		list[i] = list[i].Unmap()
	}
	if i := slices.IndexFunc(list, netip.Addr.Is4); i >= 0 {
		return list[i], nil
	}
	if len(list) == 0 {
		return netip.Addr{}, &net.AddrError{Err: "no address", Addr: host}
	}
	return list[0], nil
}

// named returns an address whose zone, if it is the number of an interface, is its
// name.
func named(ip netip.Addr) netip.Addr {
	n, err := strconv.Atoi(ip.Zone())
	if err != nil {
		return ip
	}
	if _, err := net.InterfaceByName(ip.Zone()); err == nil { // called by a number
		return ip
	}
	if i, err := net.InterfaceByIndex(n); err == nil {
		return ip.WithZone(i.Name)
	}
	return ip
}

// bindTarget does what package net does with an address that a socket binds:
// a wildcard, 0.0.0.0 too, is a dual-stack :: unless the network says otherwise, and
// a UDP socket with a multicast address binds the wildcard. ip may be invalid: none.
func bindTarget(network string, ip netip.Addr, port uint16) (target, error) {
	t := target{proto: semantics.TCP}
	if strings.HasPrefix(network, "udp") {
		t.proto = semantics.UDP
	}
	ip = ip.Unmap()
	switch {
	case strings.HasSuffix(network, "4"):
		if !ip.IsValid() {
			ip = netip.IPv4Unspecified()
		}
		if !ip.Is4() {
			return t, &net.AddrError{Err: "not an IPv4 address", Addr: ip.String()}
		}
	case strings.HasSuffix(network, "6"):
		t.v6only = true
		if !ip.IsValid() {
			ip = netip.IPv6Unspecified()
		}
		if ip.Is4() {
			return t, &net.AddrError{Err: "not an IPv6 address", Addr: ip.String()}
		}
	case !ip.IsValid() || ip.IsUnspecified():
		switch {
		case dualStack():
			ip = netip.IPv6Unspecified()
		case !ip.IsValid():
			ip = netip.IPv4Unspecified()
		}
	}
	if t.proto == semantics.UDP && ip.IsMulticast() {
		if ip.Is4() {
			ip = netip.IPv4Unspecified()
		} else {
			ip = netip.IPv6Unspecified()
		}
	}
	t.local = netip.AddrPortFrom(ip, port)
	return t, nil
}

// overlaps tells whether the kernel compares the options of two sockets with these
// addresses: they are equal, or one is a wildcard that includes the other.
func (t target) overlaps(other netip.Addr, v6only bool) bool {
	a, b := t.local.Addr(), other.Unmap()
	everything := func(ip netip.Addr, v6only bool) bool {
		return ip.Is6() && ip.IsUnspecified() && !v6only
	}
	switch {
	case everything(a, t.v6only) || everything(b, v6only):
		return true
	case a.Is4() != b.Is4():
		return false
	case a.IsUnspecified() || b.IsUnspecified():
		return true
	}
	// A link-local address is another one on each interface.
	if a.Zone() == "" || b.Zone() == "" {
		a, b = a.WithZone(""), b.WithZone("")
	}
	return a == b
}

// network returns the network of package net that makes a socket with an address.
func networkOf(p semantics.Proto, ip netip.Addr, v6only bool) string {
	name := "tcp"
	if p == semantics.UDP {
		name = "udp"
	}
	switch {
	case ip.Is4():
		return name + "4"
	case ip.IsUnspecified() && !v6only:
		return name
	}
	return name + "6"
}

// order sorts holders: listening ones, then bound ones, then the rest.
func order(list []Holder) {
	rank := func(h Holder) int { return slices.Index([]string{listen, bound, connected}, h.State) & 3 }
	slices.SortStableFunc(list, func(a, b Holder) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if d := a.Local.Compare(b.Local); d != 0 {
			return d
		}
		if d := a.Remote.Compare(b.Remote); d != 0 {
			return d
		}
		return a.PID - b.PID
	})
}

// printable returns text that does nothing to a terminal: what is not graphic is
// written as Go would escape it.
func printable(s string) string {
	quoted := strconv.QuoteToGraphic(s)
	if len(quoted) == len(s)+2 {
		return s
	}
	return quoted
}
