package inuse

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

func children() map[string]testproc.Child {
	return map[string]testproc.Child{"hold": hold, "crowd": crowd, "flicker": flicker, "explaining": explaining, "full": full, "silent": silent}
}

// A spec is a socket to be made, by nothing but system calls.
type spec struct {
	Proto   int // IPPROTO_TCP, IPPROTO_UDP, IPPROTO_MPTCP
	At      netip.AddrPort
	V6Only  bool
	Options semantics.Options
	Listen  bool
	Count   int // 0: 1
	UID     int // of the process that makes it
	Name    []byte
	Device  string // to bind to
}

// open makes one socket and returns where it is bound.
func (s spec) open() (fd int, at netip.AddrPort, err error) {
	family, kind := unix.AF_INET6, unix.SOCK_STREAM
	if s.At.Addr().Is4() {
		family = unix.AF_INET
	}
	if s.Proto == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, s.Proto); err != nil {
		return -1, at, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(s.At.Port()), Addr: [4]byte(s.At.Addr().AsSlice())}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Port: int(s.At.Port()), Addr: s.At.Addr().As16()}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, flag(s.V6Only)); err != nil {
			return fd, at, err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, flag(s.Options.Has(semantics.Addr))); err != nil {
		return fd, at, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, flag(s.Options.Has(semantics.Port))); err != nil {
		return fd, at, err
	}
	if s.Device != "" {
		if err := unix.BindToDevice(fd, s.Device); err != nil {
			return fd, at, err
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fd, at, err
	}
	if s.Listen {
		if err := unix.Listen(fd, 8); err != nil {
			return fd, at, err
		}
	}
	return fd, boundTo(fd, s.At), nil
}

func boundTo(fd int, asked netip.AddrPort) netip.AddrPort {
	sa, _ := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(asked.Addr(), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(asked.Addr(), uint16(sa.Port))
	}
	return asked
}

// hold is a child that makes sockets as a user, under a name, and keeps them until
// it is killed.
func hold(args []string, in *bufio.Scanner, out io.Writer) error {
	var s spec
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	if s.Name != nil {
		if err := os.WriteFile("/proc/self/comm", s.Name, 0); err != nil {
			return err
		}
	}
	if s.UID != os.Getuid() {
		if err := syscall.Setresuid(s.UID, s.UID, s.UID); err != nil {
			return err
		}
	}
	for range max(s.Count, 1) {
		_, at, err := s.open()
		if err != nil {
			return err
		}
		s.At = at
	}
	fmt.Fprintln(out, s.At, os.Getpid())
	for in.Scan() {
	}
	return nil
}

// start starts a holder in another process.
func (s spec) start(t testing.TB) (at netip.AddrPort, pid int) {
	t.Helper()
	b, err := json.Marshal(s)
	require.NoError(t, err)
	p := testproc.Start(t, "hold", string(b))
	var text string
	_, err = fmt.Sscan(p.Receive(), &text, &pid)
	require.NoError(t, err)
	return netip.MustParseAddrPort(text), pid
}

// crowd is a child that opens many listening sockets, each on a port of its own, and
// keeps them. Its arguments are how many, and a number that no other crowd has.
func crowd(args []string, in *bufio.Scanner, out io.Writer) error {
	var count, block int
	if _, err := fmt.Sscan(args[0], &count); err != nil {
		return err
	}
	if _, err := fmt.Sscan(args[1], &block); err != nil {
		return err
	}
	for i := range count {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(block)}), uint16(10000+i))
		s := spec{Proto: unix.IPPROTO_TCP, At: at, Listen: true}
		if _, _, err := s.open(); err != nil {
			return fmt.Errorf("socket %d on %v: %w", i, s.At, err)
		}
	}
	fmt.Fprintln(out, "open")
	for in.Scan() {
	}
	return nil
}

// flicker is a child that says its PID and ends as soon as it is told to.
func flicker(_ []string, in *bufio.Scanner, out io.Writer) error {
	s := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true}
	_, at, err := s.open()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, at, os.Getpid())
	in.Scan()
	return nil
}
