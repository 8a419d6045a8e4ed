package inuse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
)

// The kernel is asked by sock_diag, which filters by port. With 20,000 listening
// sockets on the machine an answer takes 5 ms for a family, of which 4 are the search
// for sockets that are bound only; /proc/net/tcp, which prints every socket, takes
// 80 ms, and gopsutil, which reads all sockets and looks for all their processes,
// 1,200 (measured, 6.18, 2 cores; see BenchmarkHolders, which names the yardstick).
//
// The messages are framed by mdlayher/netlink, and not by the core's own
// internal/sockdiag: it hands over one message after the other, so that a count of
// all ports keeps none of them, and it can be interrupted. That costs 0.2 ms.

// From linux/inet_diag.h, linux/sock_diag.h and net/tcp_states.h.
const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	attrV6Only       = 11 // INET_DIAG_SKV6ONLY
	requestSize      = 56 // struct inet_diag_req_v2
	messageSize      = 72 // struct inet_diag_msg

	tcpEstablished   = 1
	tcpSynRecv       = 3
	tcpClose         = 7
	tcpListen        = 10
	tcpClosing       = 11
	tcpBoundInactive = 13 // since 6.8; an older kernel ignores the bit
)

// stateName names a state of net/tcp_states.h.
func stateName(p semantics.Proto, state uint8) string {
	if p == semantics.UDP {
		if state == tcpClose {
			return bound
		}
		return connected
	}
	switch state {
	case 1:
		return "ESTABLISHED"
	case 2:
		return "SYN_SENT"
	case 3:
		return "SYN_RECV"
	case 4:
		return "FIN_WAIT1"
	case 5:
		return finWait2
	case 6:
		return timeWait
	case 7, tcpBoundInactive:
		return bound
	case 8:
		return closeWait
	case 9:
		return "LAST_ACK"
	case 10:
		return listen
	case 11:
		return "CLOSING"
	}
	return "state " + strconv.Itoa(int(state))
}

// wanted is the set of states that hold a port. Not SYN_RECV: a handshake that a
// listener answers has no port of its own and goes with the listener.
func wanted(p semantics.Proto) uint32 {
	if p == semantics.UDP {
		return 1<<tcpEstablished | 1<<tcpClose
	}
	return 1<<(tcpClosing+1) - 2&^(1<<tcpSynRecv) | 1<<tcpBoundInactive
}

// A socket is what sock_diag tells of one.
type socket struct {
	state  uint8
	local  netip.AddrPort
	remote netip.AddrPort
	device uint32 // it is bound to, 0: none
	uid    uint32
	inode  uint32 // 0: no process has it
	v6only bool
}

func (t target) look(ctx context.Context) ([]Holder, error) {
	var list []Holder
	var inodes []uint32
	err := t.sockets(ctx, func(s *socket) {
		device := s.addZone()
		if !t.overlaps(s.local.Addr(), s.v6only) && !t.overlapsConnection(s) {
			return
		}
		if zone := t.local.Addr().Zone(); zone != "" && device != "" && zone != device {
			return // a socket with a zone is bound to that device
		}
		h := Holder{
			Network: networkOf(t.proto, s.local.Addr(), s.v6only),
			Device:  device,
			Local:   s.local,
			Remote:  s.remote,
			State:   stateName(t.proto, s.state),
			UID:     int(s.uid),
			orphan:  s.inode == 0,
		}
		if s.local.Addr().Zone() != "" {
			h.Device = "" // it says the same
		}
		if s.inode == 0 && s.uid == 0 {
			h.UID = -1 // of what no process has, older kernels say 0
		}
		list = append(list, h)
		inodes = append(inodes, s.inode)
	})
	if err != nil {
		return nil, err
	}
	if err := owners(ctx, list, inodes); err != nil {
		return nil, err
	}
	return list, nil
}

// overlapsConnection tells whether an IPv6 connection may be in the way although its
// address is not: one of a dual-stack socket counts beside 0.0.0.0, but not beside
// another IPv4 address (measured, 6.18). The kernel tells of no connection whether its
// socket is dual-stack.
func (t target) overlapsConnection(s *socket) bool {
	return t.local.Addr() == netip.IPv4Unspecified() && s.local.Addr().Is6() && s.remote.IsValid()
}

// sockets calls yield for each socket that has the target's port, or any port if it
// is 0, of the families that can overlap the target's address.
func (t target) sockets(ctx context.Context, yield func(*socket)) error {
	families := []uint8{unix.AF_INET, unix.AF_INET6}
	if t.v6only || t.local.Addr().Is6() && !t.local.Addr().IsUnspecified() {
		families = families[1:]
	}
	for _, family := range families {
		err := dump(ctx, t.proto, family, t.local.Port(), yield)
		if family == unix.AF_INET6 && errors.Is(err, unix.ENOENT) {
			continue // the kernel has no IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dump asks for the sockets of a family that have a local port, or any port if it is
// 0. The socket that yield gets is valid until it returns.
//
// An answer that the kernel says may lack sockets, because some came or went, is
// taken as it is: so may any answer a moment later.
func dump(ctx context.Context, p semantics.Proto, family uint8, port uint16, yield func(*socket)) error {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return diagError(ctx, err)
	}
	defer c.Close()
	return dumpFrom(ctx, c, p, family, port, yield)
}

func dumpFrom(ctx context.Context, c *netlink.Conn, p semantics.Proto, family uint8, port uint16, yield func(*socket)) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := c.Send(netlink.Message{
		Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump},
		Data:   request(p, family, port),
	})
	if err != nil {
		return diagError(ctx, err)
	}
	var s socket
	for m, err := range c.ReceiveIter() {
		if err != nil {
			return diagError(ctx, err)
		}
		if m.Header.Type != sockDiagByFamily {
			continue
		}
		if err := s.parse(m.Data); err != nil {
			return diagError(ctx, err)
		}
		if port != 0 && s.local.Port() != port {
			continue // no kernel sends it
		}
		yield(&s)
	}
	return diagError(ctx, ctx.Err())
}

// request is a struct inet_diag_req_v2.
func request(p semantics.Proto, family uint8, port uint16) []byte {
	b := make([]byte, requestSize)
	b[0], b[1] = family, unix.IPPROTO_TCP
	if p == semantics.UDP {
		b[1] = unix.IPPROTO_UDP
	}
	binary.NativeEndian.PutUint32(b[4:], wanted(p))
	binary.BigEndian.PutUint16(b[8:], port)
	return b
}

// diagError returns ctx's error if that is why there is another.
func diagError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("sock_diag: %w", err)
}

var errShort = errors.New("message cut short")

// parse reads a struct inet_diag_msg and its attributes.
func (s *socket) parse(b []byte) error {
	if len(b) < messageSize {
		return errShort
	}
	native := binary.NativeEndian
	*s = socket{
		state:  b[1],
		device: native.Uint32(b[40:]),
		uid:    native.Uint32(b[64:]),
		inode:  native.Uint32(b[68:]),
	}
	var from, to netip.Addr
	switch b[0] {
	case unix.AF_INET:
		from, to = netip.AddrFrom4([4]byte(b[8:])), netip.AddrFrom4([4]byte(b[24:]))
	case unix.AF_INET6:
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		from, to = from.Unmap(), to.Unmap()
	default:
		return fmt.Errorf("family %d", b[0])
	}
	s.local = netip.AddrPortFrom(from, binary.BigEndian.Uint16(b[4:]))
	if port := binary.BigEndian.Uint16(b[6:]); port != 0 {
		s.remote = netip.AddrPortFrom(to, port)
	}
	for attrs := b[messageSize:]; len(attrs) >= unix.SizeofNlAttr; {
		size := int(native.Uint16(attrs))
		if size < unix.SizeofNlAttr || size > len(attrs) {
			return errShort
		}
		if native.Uint16(attrs[2:]) == attrV6Only && size > unix.SizeofNlAttr {
			s.v6only = attrs[unix.SizeofNlAttr] != 0
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return nil
}

// addZone gives a link-local address the name of its interface, or else its number,
// as package net does. It returns the name of the device that the socket is bound to.
func (s *socket) addZone() (device string) {
	if s.device == 0 {
		return ""
	}
	device = strconv.Itoa(int(s.device))
	if i, err := net.InterfaceByIndex(int(s.device)); err == nil {
		device = i.Name
	}
	if ip := s.local.Addr(); ip.Is6() && ip.IsLinkLocalUnicast() {
		s.local = netip.AddrPortFrom(ip.WithZone(device), s.local.Port())
	}
	return device
}

// dualStack tells whether package net makes a dual-stack socket for a wildcard.
func dualStack() bool {
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return !errors.Is(err, syscall.EAFNOSUPPORT)
	}
	_ = unix.Close(s)
	return true
}

// unseen says which sockets this kernel does not show, as a sentence behind others.
func unseen(p semantics.Proto) string {
	release, _ := uname()
	if p == semantics.TCP && olderThan(release, 6, 8) {
		return " Linux shows TCP sockets that are bound and do not listen from 6.8 on, and this is " + release + "."
	}
	return ""
}

// olderThan tells whether a kernel's release, as in "6.1.0-18-amd64", is before
// a version. What does not parse is not.
func olderThan(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a < major || a == major && b < minor
}
