package measure

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/windows"

	"example.com/reuse/internal/semantics"
)

// inUse is errnoName of an address that is taken.
const inUse = "WSAEADDRINUSE"

// In ws2ipdef.h; x/sys lacks it.
const ipv6V6Only = 27

type socket struct{ handle windows.Handle }

// open makes a socket. Winsock is started for each, so that this package does not
// depend on package net having started it.
func open(proto semantics.Proto, v6 bool) (socket, error) {
	var data windows.WSAData
	if err := windows.WSAStartup(0x0202, &data); err != nil {
		return socket{}, os.NewSyscallError("wsastartup", err)
	}
	family, kind, protocol := windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP
	if v6 {
		family = windows.AF_INET6
	}
	if proto == semantics.UDP {
		kind, protocol = windows.SOCK_DGRAM, windows.IPPROTO_UDP
	}
	h, err := windows.WSASocket(int32(family), int32(kind), int32(protocol), nil, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	if err != nil {
		return socket{}, errors.Join(os.NewSyscallError("wsasocket", err), windows.WSACleanup())
	}
	return socket{h}, nil
}

func (s socket) v6only(only bool) error {
	value := 0
	if only {
		value = 1
	}
	return os.NewSyscallError("setsockopt", windows.SetsockoptInt(s.handle, windows.IPPROTO_IPV6, ipv6V6Only, value))
}

func (s socket) set(o semantics.Option) error {
	switch o {
	case semantics.Addr:
		return os.NewSyscallError("setsockopt", windows.SetsockoptInt(s.handle, windows.SOL_SOCKET, windows.SO_REUSEADDR, 1))
	case semantics.Excl:
		// SO_EXCLUSIVEADDRUSE is ~SO_REUSEADDR in winsock2.h.
		return os.NewSyscallError("setsockopt", windows.SetsockoptInt(s.handle, windows.SOL_SOCKET, ^windows.SO_REUSEADDR, 1))
	}
	return os.NewSyscallError("setsockopt", windows.WSAENOPROTOOPT)
}

func (s socket) bind(ip netip.Addr, port uint16) error {
	var to windows.Sockaddr = &windows.SockaddrInet6{Port: int(port), Addr: ip.As16()}
	if ip.Is4() {
		to = &windows.SockaddrInet4{Port: int(port), Addr: ip.As4()}
	}
	return os.NewSyscallError("bind", windows.Bind(s.handle, to))
}

func (s socket) listen() error { return os.NewSyscallError("listen", windows.Listen(s.handle, 1)) }

func (s socket) close() error {
	return errors.Join(os.NewSyscallError("closesocket", windows.Closesocket(s.handle)), windows.WSACleanup())
}

func (s socket) port() (uint16, error) {
	at, err := windows.Getsockname(s.handle)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	switch at := at.(type) {
	case *windows.SockaddrInet4:
		return uint16(at.Port), nil
	case *windows.SockaddrInet6:
		return uint16(at.Port), nil
	}
	return 0, errors.New("getsockname: not an IP address")
}

func errnoName(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	switch errno {
	case windows.WSAEACCES:
		return "WSAEACCES"
	case windows.WSAEADDRINUSE:
		return inUse
	case windows.WSAEADDRNOTAVAIL:
		return "WSAEADDRNOTAVAIL"
	case windows.WSAEAFNOSUPPORT:
		return "WSAEAFNOSUPPORT"
	case windows.WSAEINVAL:
		return "WSAEINVAL"
	case windows.WSAENOPROTOOPT:
		return "WSAENOPROTOOPT"
	}
	return ""
}

// Become fails: a process cannot become another user's here.
func Become(int) error { return errors.ErrUnsupported }
