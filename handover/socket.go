package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/sockopt"
)

// A request is what a socket is asked for by.
type request struct {
	network, address string
	isPacket         bool
}

// A socket is one that this process listens on or reads from.
type socket struct {
	request
	netSocket
	id       int
	parent   bool // a parent holds the socket: this process or a predecessor had it in Files
	borrowed bool // the previous process passed the socket
}

// A netSocket is a listener or a packet socket of package net.
type netSocket interface {
	syscall.Conn
	io.Closer
}

func (s *socket) String() string { return s.network + " " + s.address }

func (s *socket) localAddr() net.Addr {
	if l, ok := s.netSocket.(net.Listener); ok {
		return l.Addr()
	}
	return s.netSocket.(net.PacketConn).LocalAddr()
}

func (s *socket) closed() bool { return control(s, func(int) error { return nil }) != nil }

func closeSockets(list []*socket) {
	for _, s := range list {
		s.Close()
	}
}

// closeListeners leaves packet sockets to the caller, who may still have answers to
// write.
func closeListeners(list []*socket) {
	for _, s := range list {
		if !s.isPacket {
			s.Close()
		}
	}
}

// control calls do with the descriptor of c.
func control(c syscall.Conn, do func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return sockopt.Control(rc, func(fd uintptr) error { return do(int(fd)) })
}

// open returns a socket that was passed, one from Files, or a new one.
func (p *Process) open(ctx context.Context, c reuse.Config, r request) (*socket, error) {
	s, err := p.find(ctx, c, r)
	if err == nil && !s.borrowed {
		if err = p.doUnlessLeaving(func() { p.use(s) }); err != nil {
			s.Close()
		}
	}
	var op *net.OpError
	if err != nil && !errors.As(err, &op) {
		err = &net.OpError{Op: "listen", Net: r.network, Err: err}
	}
	return s, err
}

func (p *Process) find(ctx context.Context, c reuse.Config, r request) (*socket, error) {
	lc, err := c.ListenConfig(net.ListenConfig{Control: p.config.Control})
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.config.Name != "" && strings.HasPrefix(r.network, "ip") {
		return nil, fmt.Errorf("%w: raw sockets cannot be passed", errors.ErrUnsupported)
	}
	if s, err := p.fromPassed(ctx, c, r); s != nil || err != nil {
		return s, err
	}
	var s *socket
	var files, vanished bool
	if err := p.doUnlessLeaving(func() { files, vanished = len(p.files) > 0, p.vanished }); err != nil {
		return nil, err
	}
	if files {
		if s, err = p.fromFiles(ctx, r); err != nil {
			return nil, err
		}
	}
	if s == nil {
		return p.openNew(ctx, c, lc, r, vanished)
	}
	if err := s.verify(ctx, c); err != nil {
		if p.do(func() { p.files = slices.Insert(p.files, 0, s) }) != nil {
			s.Close()
		}
		return nil, err
	}
	return s, nil
}

// fromPassed returns the first passed socket of a request, which is in use from then on, or
// nil. The socket stays in passed while it is verified: a Ready under way either has it in
// Keep or closes it. What this process serves, the previous one must not hide.
func (p *Process) fromPassed(ctx context.Context, c reuse.Config, r request) (*socket, error) {
	for {
		var s *socket
		if err := p.doUnlessLeaving(func() {
			if i := slices.IndexFunc(p.passed, func(s *socket) bool { return s.request == r }); i >= 0 {
				s = p.passed[i]
			}
		}); err != nil || s == nil {
			return nil, err
		}
		verr := s.verify(ctx, c)
		var still bool // or another Listen has it, or Ready has closed it
		if err := p.doUnlessLeaving(func() {
			if still = slices.Contains(p.passed, s); still && verr == nil {
				take(&p.passed, func(other *socket) bool { return other == s })
				p.use(s)
			}
		}); err != nil {
			return nil, err
		}
		if still && verr != nil {
			return nil, verr
		}
		if still {
			return s, nil
		}
	}
}

// use adds a socket to those of this process.
func (p *Process) use(s *socket) {
	if p.current {
		p.number(s)
	}
	p.sockets = append(slices.DeleteFunc(p.sockets, (*socket).closed), s)
}

// number gives a socket of the current process the number by which a newcomer names it.
func (p *Process) number(s *socket) {
	p.nextID++
	s.id = p.nextID
}

// take removes and returns the first socket that fits, or returns nil.
func take(list *[]*socket, fits func(*socket) bool) *socket {
	i := slices.IndexFunc(*list, fits)
	if i < 0 {
		return nil
	}
	s := (*list)[i]
	*list = slices.Delete(*list, i, i+1)
	return s
}

// openNew opens a socket. The kernel may still be closing those of a process that was
// killed a moment ago, and a Unix socket's file outlives its process.
func (p *Process) openNew(ctx context.Context, c reuse.Config, lc net.ListenConfig, r request, vanished bool) (*socket, error) {
	listen, listenPacket := c.Listen, c.ListenPacket // which know more than lc, for example about port 0
	if p.config.Control != nil {
		listen, listenPacket = lc.Listen, lc.ListenPacket
	}
	for patience := time.Now().Add(time.Second); ; {
		var opened any
		var err error
		if r.isPacket {
			opened, err = listenPacket(ctx, r.network, r.address)
		} else {
			opened, err = listen(ctx, r.network, r.address)
		}
		switch {
		case err == nil:
			return &socket{request: r, netSocket: opened.(netSocket)}, nil
		case !addressInUse(err) || p.config.Name == "":
			return nil, err
		case strings.HasPrefix(r.network, "unix") && removeStale(ctx, r):
		case vanished && time.Now().Before(patience) && pause(ctx.Done(), 10*time.Millisecond):
		default:
			var op *net.OpError
			if errors.As(err, &op) {
				op.Err = fmt.Errorf("%w: no process that meets at %s passed a socket for %s %s", op.Err, p.config.meetingPlace(), r.network, r.address)
			}
			return nil, err
		}
	}
}

// fromFiles returns the first of Config.Files that has the address and type that
// package net would give a new socket.
func (p *Process) fromFiles(ctx context.Context, r request) (*socket, error) {
	want, _, err := wouldOpen(ctx, r, reuse.Config{})
	if err != nil {
		return nil, err
	}
	var s *socket
	err = p.do(func() {
		s = take(&p.files, func(s *socket) bool {
			have, err := s.shape()
			return err == nil && have == want
		})
	})
	if s != nil {
		s.request = r
	}
	return s, err
}

// A shape is where and how a socket is bound.
type shape struct {
	network    string // "tcp4", "tcp6" and so on, as for a Control function
	host, port string // the host is empty for a wildcard address, and a path for Unix
	v6only     bool   // of a wildcard address
}

func newShape(network, address string, sc syscall.Conn) (sh shape, err error) {
	sh = shape{network: network, host: address}
	if strings.HasPrefix(network, "unix") {
		return sh, nil
	}
	if sh.host, sh.port, err = net.SplitHostPort(address); err != nil {
		return sh, err
	}
	if ip, err := netip.ParseAddr(sh.host); err == nil && !ip.IsUnspecified() {
		return sh, nil
	}
	sh.host = ""
	if strings.HasSuffix(network, "6") {
		err = control(sc, func(fd int) (err error) {
			sh.v6only, err = sockopt.V6Only(uintptr(fd))
			return err
		})
	}
	return sh, err
}

var errNotOpened = errors.New("not opened")

// wouldOpen returns the shape of the socket that package net would open with c's options,
// and the options if c has any. That socket is closed before it is bound.
func wouldOpen(ctx context.Context, r request, c reuse.Config) (sh shape, options reuse.Config, err error) {
	lc := net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) (err error) {
		if c != (reuse.Config{}) {
			if err := c.Control(network, address, rc); err != nil {
				return err
			}
			if options, err = reuse.Inspect(rawConn{rc}); err != nil {
				return err
			}
		}
		if sh, err = newShape(network, address, rawConn{rc}); err != nil {
			return err
		}
		return errNotOpened
	}}
	if r.isPacket {
		_, err = lc.ListenPacket(ctx, r.network, r.address)
	} else {
		_, err = lc.Listen(ctx, r.network, r.address)
	}
	if errors.Is(err, errNotOpened) {
		err = nil
	}
	return sh, options, err
}

// shape returns the shape of a socket that is open.
func (s *socket) shape() (shape, error) {
	network, address := s.localAddr().Network(), s.localAddr().String()
	switch {
	case strings.HasPrefix(network, "unix"):
	case strings.HasPrefix(address, "["):
		network += "6"
	default:
		network += "4"
	}
	return newShape(network, address, s)
}

// verify fails with an OptionError unless the socket is as c asks for, as far as that
// can be seen: it is compared with a new one that c was applied to.
func (s *socket) verify(ctx context.Context, c reuse.Config) error {
	if c == (reuse.Config{}) {
		return nil
	}
	sh, err := s.shape()
	if err != nil {
		return err
	}
	r := request{s.network, s.localAddr().String(), s.isPacket}
	if sh.v6only || strings.HasSuffix(sh.network, "4") {
		r.network = sh.network
	}
	_, want, err := wouldOpen(ctx, r, c)
	if err != nil {
		return err
	}
	have, err := reuse.Inspect(s)
	if err != nil {
		return err
	}
	for _, o := range []struct {
		option            reuse.Option
		asked, want, have reuse.Setting
	}{
		{reuse.Addr, c.Addr, want.Addr, have.Addr},
		{reuse.Port, c.Port, want.Port, have.Port},
		{reuse.PortLB, c.PortLB, want.PortLB, have.PortLB},
		{reuse.Exclusive, c.Exclusive, want.Exclusive, have.Exclusive},
	} {
		// What is shared is not exclusive, whether there is an option for that or not.
		exclusive := c.Exclusive == reuse.On && o.want == reuse.Off
		if (o.asked == reuse.On && o.want == reuse.On && o.have != reuse.On) ||
			((o.asked == reuse.Off || exclusive) && o.have == reuse.On) {
			option := o.option
			if exclusive {
				option = reuse.Exclusive
			}
			return &reuse.OptionError{Op: "check", Option: option, Err: errors.New("the socket that was passed has other options, which only the process that opens it can set: stop that process, and start again")}
		}
	}
	return nil
}

// rawConn is a RawConn that is a syscall.Conn.
type rawConn struct{ syscall.RawConn }

func (c rawConn) SyscallConn() (syscall.RawConn, error) { return c.RawConn, nil }
