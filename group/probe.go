//go:build darwin || freebsd || linux || netbsd || openbsd

package group

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// probes are connections of the group to itself that are under way. No user sees
// one: the member that accepts it swallows it.
type probes struct {
	some atomic.Int32 // the length of waiting

	mu      sync.Mutex
	waiting map[netip.AddrPort]chan<- *member
	running int           // reasons to accept at once
	rush    chan struct{} // closed while there are any
}

func (p *probes) add(from netip.AddrPort, got chan<- *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[netip.AddrPort]chan<- *member{}
	}
	p.waiting[from] = got
	p.some.Store(int32(len(p.waiting)))
}

func (p *probes) remove(from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, from)
	p.some.Store(int32(len(p.waiting)))
}

// forget forgets all probes: nobody accepts any more who could have one in hand.
func (p *probes) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = nil
	p.some.Store(0)
}

// begin lets the members accept whatever is queued, also if the user does not accept:
// a user may well call TakeOver first and Serve then, and a probe is behind others.
func (p *probes) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running++; p.running == 1 {
		if p.rush == nil {
			p.rush = make(chan struct{})
		}
		close(p.rush)
	}
}

func (p *probes) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running--; p.running == 0 {
		p.rush = nil
	}
}

// begun returns a channel that is closed as soon as begin has been called, and end
// has not.
func (p *probes) begun() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rush == nil {
		p.rush = make(chan struct{})
	}
	return p.rush
}

// swallow closes a connection if it is a probe, and tells who accepted it.
func (p *probes) swallow(conn *net.TCPConn, by *member) bool {
	if p.some.Load() == 0 {
		return false
	}
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	p.mu.Lock()
	got, ok := p.waiting[from]
	delete(p.waiting, from)
	p.some.Store(int32(len(p.waiting)))
	p.mu.Unlock()
	if !ok {
		return false
	}
	conn.Close() // the other end, which is this process, resets it
	got <- by    // has room
	return true
}

// target is where the group reaches itself.
func (g *Group) target() netip.AddrPort {
	at := g.Addr().(*net.TCPAddr).AddrPort()
	ip := at.Addr().Unmap()
	switch {
	case ip.IsUnspecified() && ip.Is4():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ip.IsUnspecified():
		ip = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(ip, at.Port())
}

// bindTo binds a socket to an address and any port.
func bindTo(fd int, ip netip.Addr) (netip.AddrPort, error) {
	var sa unix.Sockaddr
	if ip.Is4() {
		sa = &unix.SockaddrInet4{Addr: ip.As4()}
	} else {
		six := &unix.SockaddrInet6{Addr: ip.As16()}
		if zone := ip.Zone(); zone != "" {
			i, err := net.InterfaceByName(zone)
			if err != nil {
				return netip.AddrPort{}, err
			}
			six.ZoneId = uint32(i.Index)
		}
		sa = six
	}
	if err := unix.Bind(fd, sa); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch name := name.(type) { // a jail of FreeBSD has changed the address
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).WithZone(ip.Zone()), uint16(name.Port)), nil
	}
	return netip.AddrPort{}, errors.New("group: a probe has no address")
}
