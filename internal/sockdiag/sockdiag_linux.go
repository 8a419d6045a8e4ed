// Package sockdiag asks Linux which TCP or UDP sockets a port has.
//
// The kernel filters listeners and connections by port, so an answer takes a fraction of a
// millisecond however many connections the machine has. Reading /proc/net/tcp takes 50 to
// 84 ms with 9,000 connections (Linux 6.18). No privilege is needed. The sockets are those
// of the caller's network namespace.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// From linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	attrV6Only       = 11 // INET_DIAG_SKV6ONLY
	requestSize      = 56 // struct inet_diag_req_v2
	messageSize      = 72 // struct inet_diag_msg
)

var native = binary.NativeEndian

// A Socket is a TCP or UDP socket.
type Socket struct {
	State     uint32         // one bit, as 1<<unix.BPF_TCP_LISTEN; BPF_TCP_CLOSE of an unconnected UDP socket
	Local     netip.AddrPort // an IPv4-mapped address is given as IPv4
	Remote    netip.AddrPort // zero: none
	Interface uint32         // it is bound to, 0: none
	UID       uint32
	Inode     uint32 // as in a link of /proc/PID/fd; 0: no process has the socket
	V6Only    bool   // of an IPv6 listener, or unconnected UDP socket
}

var errShort = errors.New("sock_diag: message cut short")

// Sockets returns the sockets of a protocol (IPPROTO_TCP or IPPROTO_UDP) and a family
// (AF_INET or AF_INET6) that have a local port, or any port if it is 0, and one of a set
// of states, in the kernel's order. The error wraps ENOENT on a kernel without the handler
// of the protocol (tcp_diag, udp_diag), and what socket(2) returns on one without sock_diag.
func Sockets(protocol, family uint8, port uint16, states uint32) (list []Socket, err error) {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	req := make([]byte, unix.NLMSG_HDRLEN+requestSize)
	native.PutUint32(req[0:], uint32(len(req)))
	native.PutUint16(req[4:], sockDiagByFamily)
	native.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.NLMSG_HDRLEN:]
	body[0], body[1] = family, protocol
	native.PutUint32(body[4:], states)
	binary.BigEndian.PutUint16(body[8:], port)
	if err := unix.Sendto(s, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	list, err = receive(s)
	// The kernel does not compare the port of TCP sockets that are bound and do not listen
	// (inet_diag_dump_icsk, 6.18).
	return slices.DeleteFunc(list, func(s Socket) bool { return port != 0 && s.Local.Port() != port }), err
}

// receive reads an answer to its end.
func receive(s int) (list []Socket, err error) {
	buf := make([]byte, 32<<10)
	for {
		n, from, err := unix.Recvfrom(s, buf, unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not the kernel
		}
		if n > len(buf) {
			return nil, errShort
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, os.NewSyscallError("sock_diag", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case sockDiagByFamily:
				socket, err := parse(m.Data)
				if err != nil {
					return nil, err
				}
				list = append(list, socket)
			case unix.NLMSG_DONE, unix.NLMSG_ERROR: // both hold an errno, DONE that of a dump that failed
				if len(m.Data) < 4 {
					return nil, errShort
				}
				if errno := -int32(native.Uint32(m.Data)); errno != 0 {
					return nil, os.NewSyscallError("sock_diag", unix.Errno(errno))
				}
				return list, nil
			}
		}
	}
}

// parse reads a struct inet_diag_msg and its attributes.
func parse(b []byte) (Socket, error) {
	if len(b) < messageSize {
		return Socket{}, errShort
	}
	size := 4
	if b[0] == unix.AF_INET6 {
		size = 16
	}
	address := func(ip, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(b[ip : ip+size])
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[port:]))
	}
	s := Socket{
		State:     1 << (b[1] & 31),
		Local:     address(8, 4),
		Interface: native.Uint32(b[40:]),
		UID:       native.Uint32(b[64:]),
		Inode:     native.Uint32(b[68:]),
	}
	if remote := address(24, 6); remote.Port() != 0 {
		s.Remote = remote
	}
	for attrs := b[messageSize:]; len(attrs) >= unix.SizeofNlAttr; {
		size := int(native.Uint16(attrs))
		if size < unix.SizeofNlAttr || size > len(attrs) {
			return Socket{}, errShort
		}
		if native.Uint16(attrs[2:]) == attrV6Only && size > unix.SizeofNlAttr {
			s.V6Only = attrs[unix.SizeofNlAttr] != 0
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return s, nil
}
