package inuse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/reuse/internal/semantics"
)

// A Holder is a socket that overlaps an address.
type Holder struct {
	// Network is the network of package net that makes such a socket: "tcp4" or "udp4"
	// for an IPv4 address, "tcp6" or "udp6" for an IPv6 address, and "tcp" or "udp" for a
	// dual-stack ::. Where the system does not report which it is, :: counts as
	// dual-stack. A Multipath TCP socket counts as a TCP socket.
	Network string

	Local  netip.AddrPort // an IPv4-mapped address is given as IPv4
	Remote netip.AddrPort // zero: none
	Path   string         // of a Unix socket, as it was bound; Local is zero then

	// State is "LISTEN", "BOUND" (a TCP socket that does not listen, or an
	// unconnected UDP socket), "CONNECTED" (a connected UDP socket), or TCP's name
	// for a connection: "ESTABLISHED", "TIME_WAIT", "CLOSE_WAIT", ...
	State string

	Device  string // the interface that the socket is bound to; "": none, or not reported
	UID     int    // the socket's user, which can differ from its process's; -1: not reported
	PID     int    // a process that has the socket; 0: not visible to this user, or none has it
	Command string // the process's own name for itself; can contain any bytes

	orphan  bool // no process has it
	outside bool // its user is outside this user namespace
	vague   bool // the system does not report whether it is IPv6 only
}

// The names of states, apart from TCP's others.
const (
	listen    = "LISTEN"
	bound     = "BOUND"
	connected = "CONNECTED"
	timeWait  = "TIME_WAIT"
	finWait2  = "FIN_WAIT2"
	closeWait = "CLOSE_WAIT"
)

// String describes the holder, as in "pid 4211 (nginx), listening on 0.0.0.0:8080 (socket
// of uid 33)". It has no effect on a terminal, whatever the command's name is.
func (h Holder) String() string {
	verb := "with a connection from "
	switch h.State {
	case listen:
		verb = "listening on "
	case bound:
		verb = "bound to "
	}
	s := h.process() + ", " + verb + h.place()
	if h.State == bound && h.Path == "" && protoOf(h.Network) == semantics.TCP {
		s += " and not listening"
	}
	if h.Remote.IsValid() {
		s += " to " + printable(h.Remote.String())
	}
	var about []string
	if h.State != listen && h.State != bound {
		about = append(about, printable(h.State))
	}
	if h.outside {
		about = append(about, "socket of a user outside this user namespace")
	} else if h.UID >= 0 {
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

func (h Holder) process() string {
	s := "a process that is not visible"
	switch {
	case h.PID == os.Getpid():
		s = "this process, pid " + strconv.Itoa(h.PID)
	case h.PID != 0:
		s = "pid " + strconv.Itoa(h.PID)
	case h.queued():
		s = "no process yet"
	case h.orphan:
		s = "no process any more"
	case os.Geteuid() == 0:
		s = "a process that has ended or is not visible"
	}
	if h.Command != "" {
		s += " (" + printable(h.Command) + ")"
	}
	return s
}

func (h Holder) place() string {
	if h.Path != "" {
		return printable(h.Path)
	}
	return printable(h.Local.String())
}

// queued reports whether a connection waits to be accepted, perhaps closed by its peer. A
// connection that its process has closed is in another state.
func (h Holder) queued() bool {
	return h.orphan && (h.State == "ESTABLISHED" || h.State == closeWait)
}

// target is what the holder has bound.
func (h Holder) target() target {
	return target{protoOf(h.Network), h.Local, strings.HasSuffix(h.Network, "6")}
}

// printable returns text that has no effect on a terminal. A text that is not graphic is
// quoted as in Go.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) < 0 {
		return s
	}
	return strconv.QuoteToGraphic(s)
}

// Holders returns the sockets that overlap a local address, listening or not. The kernel
// compares them with a socket that binds the address. network is "tcp", "tcp4", "tcp6",
// "udp", "udp4" or "udp6". address is that of a Listen: ":8080" on "tcp" is dual-stack where
// package net makes it so. On Linux network can also be "unix", "unixgram" or "unixpacket",
// and address a path. The result is empty if there are none.
//
// The sockets are ordered by state, listening ones first, then by address and device. If
// several processes have a socket, the Holder names one of them: this process, or else
// preferably one of the socket's user with a low PID.
//
// An IPv6 connection, of TCP or UDP, of a dual-stack socket conflicts with 0.0.0.0
// (Linux 6.18). Linux does not report whether a connection's socket is dual-stack, so all
// IPv6 connections count there.
//
// The package comment lists what each system shows.
//
// The error wraps [errors.ErrUnsupported] on systems where sockets cannot be read, and
// [os.ErrInvalid] for port 0, which no socket has.
func Holders(ctx context.Context, network, address string) (list []Holder, err error) {
	if isUnix(network) {
		list, err = unixHolders(ctx, address)
	} else {
		var t target
		if t, err = resolvePort(ctx, network, address); err == nil {
			list, _, err = t.holders(ctx)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("inuse: %w", err)
	}
	return list, nil
}

// order sorts holders: listening ones, then bound ones, then the rest.
func order(list []Holder) {
	rank := func(h Holder) int { return slices.Index([]string{connected, bound, listen}, h.State) }
	slices.SortStableFunc(list, func(a, b Holder) int {
		return cmp.Or(rank(b)-rank(a), a.Local.Compare(b.Local), a.Remote.Compare(b.Remote),
			strings.Compare(a.Device, b.Device), a.PID-b.PID)
	})
}

// A target is what a socket binds.
type target struct {
	proto  semantics.Proto
	local  netip.AddrPort
	v6only bool // if local is ::
}

// resolvePort is resolve for an address with a port.
func resolvePort(ctx context.Context, network, address string) (target, error) {
	t, err := resolve(ctx, network, address)
	if err == nil && t.local.Port() == 0 {
		err = fmt.Errorf("%w: port 0 is any free port", os.ErrInvalid)
	}
	return t, err
}

// resolve returns what package net binds for an address. A wildcard, also 0.0.0.0, is a
// dual-stack :: unless the network ends in a digit. A UDP socket with a multicast address
// binds the wildcard. Of a host's addresses the first IPv4 address is preferred.
func resolve(ctx context.Context, network, address string) (t target, err error) {
	kind := strings.TrimRight(network, "46")
	if kind == "ip" {
		return t, fmt.Errorf("%w: network %q has no ports", errors.ErrUnsupported, network)
	}
	if kind != "tcp" && kind != "udp" || len(network) > 4 {
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
	ip, parseErr := netip.ParseAddr(host)
	if parseErr != nil && host != "" {
		list, err := net.DefaultResolver.LookupNetIP(ctx, "ip"+network[3:], host)
		if err != nil {
			return t, err
		}
		ip = list[max(0, slices.IndexFunc(list, func(ip netip.Addr) bool { return ip.Unmap().Is4() }))]
	}
	ip = zoneByName(ip.Unmap())
	four, six := strings.HasSuffix(network, "4"), strings.HasSuffix(network, "6")
	wildcard := !ip.IsValid() || ip.IsUnspecified()
	group := kind == "udp" && ip.IsMulticast()
	switch {
	case four && ip.Is6() && !wildcard:
		return t, &net.AddrError{Err: "not an IPv4 address", Addr: ip.String()}
	case six && ip.Is4():
		return t, &net.AddrError{Err: "not an IPv6 address", Addr: ip.String()}
	case wildcard && (six || !four && dualStack()), group && ip.Is6():
		ip = netip.IPv6Unspecified()
	case !ip.IsValid(), four && wildcard, group: // also for "tcp4" and ::
		ip = netip.IPv4Unspecified()
	}
	return target{protoOf(network), netip.AddrPortFrom(ip, uint16(port)), six}, nil
}

func protoOf(network string) semantics.Proto {
	if strings.HasPrefix(network, "udp") {
		return semantics.UDP
	}
	return semantics.TCP
}

// zoneByName returns an address whose zone, if it is the number of an interface, is its
// name.
func zoneByName(ip netip.Addr) netip.Addr {
	n, err := strconv.Atoi(ip.Zone())
	if err != nil {
		return ip
	}
	if _, err := net.InterfaceByName(ip.Zone()); err == nil { // called by a number
		return ip
	}
	return ip.WithZone(interfaceName(n))
}

// interfaceName returns the name of an interface, or else its number, as package net does.
func interfaceName(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return strconv.Itoa(index)
}

// overlaps reports whether the kernel compares the options of two sockets with these
// addresses: they are equal, or one is a wildcard that includes the other.
func (t target) overlaps(other netip.Addr, v6only bool) bool {
	a, b := t.local.Addr(), other.Unmap()
	switch {
	case t.dual() || b == netip.IPv6Unspecified() && !v6only:
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

// dual reports whether this is a dual-stack wildcard.
func (t target) dual() bool { return t.local.Addr() == netip.IPv6Unspecified() && !t.v6only }

// networkOf returns the network of package net that makes a socket with an address.
func networkOf(p semantics.Proto, ip netip.Addr, v6only bool) string {
	switch {
	case ip.Is4():
		return p.String() + "4"
	case ip.IsUnspecified() && !v6only:
		return p.String()
	}
	return p.String() + "6"
}
