//go:build unix

package measure

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
)

// inUse is errnoName of an address that is taken.
const inUse = "EADDRINUSE"

type socket struct{ fd int }

// open makes a socket. A child that is started meanwhile must not inherit it.
func open(proto semantics.Proto, v6 bool) (socket, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if v6 {
		family = unix.AF_INET6
	}
	if proto == semantics.UDP {
		kind = unix.SOCK_DGRAM
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return socket{}, os.NewSyscallError("socket", err)
	}
	unix.CloseOnExec(fd)
	return socket{fd}, nil
}

func (s socket) v6only(only bool) error {
	value := 0
	if only {
		value = 1
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, value))
}

func (s socket) set(o semantics.Option) error {
	name := number(o)
	if name == 0 {
		return os.NewSyscallError("setsockopt", unix.ENOPROTOOPT)
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, name, 1))
}

func (s socket) bind(ip netip.Addr, port uint16) error {
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}
	if ip.Is4() {
		to = &unix.SockaddrInet4{Port: int(port), Addr: ip.As4()}
	}
	return os.NewSyscallError("bind", unix.Bind(s.fd, to))
}

func (s socket) listen() error { return os.NewSyscallError("listen", unix.Listen(s.fd, 1)) }
func (s socket) close() error  { return os.NewSyscallError("close", unix.Close(s.fd)) }

func (s socket) port() (uint16, error) {
	at, err := unix.Getsockname(s.fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		return uint16(at.Port), nil
	case *unix.SockaddrInet6:
		return uint16(at.Port), nil
	}
	return 0, errors.New("getsockname: not an IP address")
}

func errnoName(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return ""
}

// Become makes this process, which must be root's, another user's for good.
func Become(uid int) error {
	if err := syscall.Setgid(uid); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return os.NewSyscallError("setuid", err)
	}
	if is := syscall.Getuid(); is != uid { // a number that the kernel cut off
		return fmt.Errorf("setuid %d: the user is %d", uid, is)
	}
	return nil
}
