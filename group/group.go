// Package group opens several listeners on one address, and hands that address
// from one process to the next without losing a connection.
//
//	g, err := group.Config{}.Listen(ctx, "tcp", ":8080")
//	...
//	err = g.TakeOver(ctx, 0)  // new connections come here; the old process is told to go
//	err = g.Serve(srv.Serve)
//
// and, when the process itself is to go, because its successor has taken over:
//
//	err = g.Drain(ctx)        // nothing is left queued, handshakes are finished
//	err = srv.Shutdown(ctx)
//
// Drain comes before Shutdown: a server of net/http that is shutting down drops the
// requests that it has accepted and not yet read. The package's Example waits for those
// in between.
//
// A [PacketGroup] does the same for UDP, on Linux.
//
// # Why connections are lost otherwise
//
// The kernel gives a new connection to a listener when its SYN arrives. When
// a listener closes, the kernel resets the connections that are queued on it and
// drops the handshakes that are under way, even if other listeners share the
// address.
//
// # What it needs
//
// The processes belong to one user and are in one network namespace, and they listen
// on the same address: ":8080" and "127.0.0.1:8080" are two groups. They need no
// privilege and no common parent. Somebody tells the old process when TakeOver has
// returned in the new one; how is the caller's affair. The zero [Config] is for Linux;
// elsewhere see below.
//
// # Linux
//
// TakeOver sends new connections past the listeners of the old process, with a classic
// BPF program on the group of sharing sockets. Drain then waits for the handshakes
// that began before, and for the queues to be empty, and closes.
//
// Before Linux 5.7 a listener cannot be hidden from new connections in the
// instant when it closes: 0.2 to 0.6% of closes under load lost one there.
//
// Linux has a bug here (CVE-2026-52910, from 4.5 on): when a program is replaced or
// detached, the old one is freed while another processor may be running it. TakeOver
// replaces programs, so on a busy port it can bring down a kernel that is not mended:
// one panic was seen, on Debian's 5.10.223, and none in millions of connections on
// 6.18.44. Debian has mended it in 5.10.259, 6.1.176 and 6.12.94 (its changelogs); for
// other kernels see who makes them.
//
// # FreeBSD, OpenBSD, NetBSD, macOS
//
// The listener that is bound last gets every new connection if all of them have Port,
// so whoever listens has taken over: on FreeBSD from 14 on, OpenBSD and NetBSD, and
// for a specific address on macOS and on FreeBSD before 14. TakeOver makes sure that
// it is so, and Drain waits likewise. A group's other listeners are idle.
//
//	c := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 1}
//	g, err := c.Listen(ctx, "tcp", "192.0.2.1:8080")
//
// The processes must have the same directory for temporary files ([os.TempDir]), where
// they leave word of who has taken over.
//
// FreeBSD's PortLB spreads connections over old and new listeners, and nothing steers
// them. Measured on FreeBSD 14.0 with one processor: with Port the old listener, closed
// 100 ms after the new one listened, lost 0 of 6,696 connections, with PortLB 114 of
// 3,733. The others were read in their sources, and who gets the connections was
// also measured on NetBSD 7.99.
//
// What remains: a new socket gets the connections from its bind on, and between that
// and listen, some microseconds, it refuses them (FreeBSD, measured) or leaves them to
// be tried again (NetBSD, measured); so open few listeners. In rare moments these
// kernels choose an older listener after all: FreeBSD on a wildcard address when a lock
// is contended, OpenBSD when it enlarges a table (both source).
//
// # DragonFly
//
// The kernel gives the queue of a listener that closes, and its handshakes, to another
// that shares the address (source, 3.6 and later): close the old one when the new one
// listens. TakeOver is unsupported.
//
// # Other systems
//
// Nothing is known that could hand over: TakeOver is unsupported. Groups can be opened,
// served and closed wherever the kernel lets listeners share an address.
//
// # What cannot be promised
//
//   - Connections that a process has accepted, or that are queued on it, when it is
//     killed.
//   - Handshakes slower than Config.Handshake.
//   - An old process that closes without Drain.
//   - Anything, if another program of the same user changes the steering, or another
//     user binds beside it in several steps, which Linux admits and by which it can
//     keep a successor from listening (see the field Exclusive of [reuse.Config]).
//   - An even spread of the connections while one process hands over to the next.
package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"example.com/reuse"
)

// A Config says how a group is opened and handed over. The zero Config is good for
// most servers.
type Config struct {
	// Socket has the options of each listener. If it has neither Port nor PortLB
	// On or Prefer, PortLB is On.
	Socket reuse.Config

	// Size is the number of listeners; 0 is GOMAXPROCS.
	Size int

	// Handshake is how long Drain waits for handshakes under way; 0 is 3 s. If the
	// listener has TCP_DEFER_ACCEPT, its time is added.
	Handshake time.Duration

	// HoldFor is how long the steering may outlast TakeOver while listeners from
	// before remain; 0 is 60 s. Other newcomers wait that long, and 10 s more if
	// listeners from before do not accept and their queues are full.
	HoldFor time.Duration

	// Rescue accepts for a listener whose queue nobody has taken anything from for
	// 10 to 20 ms, and gives the connections to listeners on which somebody waits in
	// Accept. Otherwise the kernel goes on to give a stalled listener its share, and
	// those clients wait. It costs a look at each queue every 10 ms. Unix only;
	// elsewhere Listen fails with errors.ErrUnsupported. ListenPacket does not use it.
	Rescue bool
}

// maxSize is more than anybody needs; the kernel's own limit is 65,535.
const maxSize = 1 << 14

// check returns c with defaults in place of zeros.
func (c Config) check() (Config, error) {
	if c.Size < 0 || c.Size > maxSize {
		return c, fmt.Errorf("group: %w: Size %d is not from 0 to %d", os.ErrInvalid, c.Size, maxSize)
	}
	if c.Handshake < 0 || c.HoldFor < 0 {
		return c, fmt.Errorf("group: %w: a negative time", os.ErrInvalid)
	}
	if c.Size == 0 {
		c.Size = runtime.GOMAXPROCS(0)
	}
	if c.Handshake == 0 {
		c.Handshake = 3 * time.Second
	}
	if c.HoldFor == 0 {
		c.HoldFor = time.Minute
	}
	if !wanted(c.Socket.Port) && !wanted(c.Socket.PortLB) {
		c.Socket.PortLB = reuse.On
	}
	return c, c.Socket.Check()
}

func wanted(s reuse.Setting) bool { return s == reuse.On || s == reuse.Prefer }

// A Group is a number of listeners on one address that belong together.
type Group struct {
	config    Config
	network   string
	listeners []*listener

	turn   chan struct{}   // one TakeOver, Drain or Close at a time
	ended  context.Context // is done when Drain or Close has begun
	finish context.CancelFunc
	shut   context.Context // is done then, and when all listeners are closed
	close  context.CancelFunc

	stalled chan result   // what any listener may return, if there is Rescue
	rescued chan struct{} // closed when nobody rescues any more; nil without

	mu      sync.Mutex
	members []*member // the kernel's sockets: one for each listener, and spares
	left    []*member // spares that are closed and may have a connection in hand
	steered
}

// Listen opens the listeners of a group, all or none. network is "tcp", "tcp4" or
// "tcp6". With port 0 the first chooses and the others join it. The listeners are
// plain TCP: the kernel does not steer Multipath TCP.
//
// Listen waits while another process of the same user takes this address over (on
// the BSDs: opens a group), until ctx ends.
func (c Config) Listen(ctx context.Context, network, address string) (*Group, error) {
	c, err := c.check()
	if err != nil {
		return nil, listenError(network, err)
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	case "unix", "unixpacket", "unixgram", "ip", "ip4", "ip6":
		return nil, listenError(network, fmt.Errorf("group: %w: no address can be shared", errors.ErrUnsupported))
	default:
		return nil, listenError(network, net.UnknownNetworkError(network))
	}
	lc, err := c.Socket.ListenConfig(net.ListenConfig{})
	if err != nil {
		return nil, listenError(network, err)
	}
	lc.SetMultipathTCP(false)

	g := &Group{config: c, network: network, turn: make(chan struct{}, 1)}
	g.ended, g.finish = context.WithCancel(context.Background())
	g.shut, g.close = context.WithCancel(g.ended)
	if err := ctx.Err(); err != nil { // net would not look at it
		return nil, listenError(network, err)
	}
	if c.Rescue && !canRescue {
		return nil, listenError(network, fmt.Errorf("group: Rescue: %w", errors.ErrUnsupported))
	}
	if err := g.open(ctx, &lc, address); err != nil {
		g.finish()
		g.closeMembers()
		return nil, err
	}
	if c.Rescue && c.Size > 1 {
		g.stalled, g.rescued = make(chan result), make(chan struct{})
		go g.rescue()
	}
	return g, nil
}

func listenError(network string, err error) error {
	return &net.OpError{Op: "listen", Net: network, Err: err}
}

// open opens the members. Those of other processes must not change meanwhile, so
// it holds the address's lock, for a port 0 from the moment that it is known.
func (g *Group) open(ctx context.Context, lc *net.ListenConfig, address string) error {
	at, err := net.ResolveTCPAddr(g.network, address)
	if err != nil {
		return listenError(g.network, err)
	}
	var held *lock
	defer func() { held.release() }()
	if at.Port != 0 {
		if held, err = g.lockAddress(ctx, at); err != nil {
			return listenError(g.network, err)
		}
	}
	for i := range g.config.Size {
		l, err := lc.Listen(ctx, g.network, address)
		if err != nil {
			return err
		}
		address = l.Addr().String()
		out, err := newListener(g, l.(*net.TCPListener))
		if err != nil {
			l.Close()
			return listenError(g.network, err)
		}
		g.listeners = append(g.listeners, out)
		g.members = append(g.members, out.member)
		if i > 0 {
			continue
		}
		if at.Port == 0 {
			if held, err = g.lockAddress(ctx, l.Addr().(*net.TCPAddr)); err != nil {
				return listenError(g.network, err)
			}
		}
		// Who held the lock before may have died and left its program.
		if err := detach(out.member); err != nil {
			return listenError(g.network, err)
		}
	}
	return nil
}

// closeMembers undoes an open that failed half-way.
func (g *Group) closeMembers() {
	for _, m := range g.members {
		m.l.Close()
	}
}

// Addr returns the group's address.
func (g *Group) Addr() net.Addr { return g.listeners[0].Addr() }

// Listeners returns the listeners, in the order in which they were opened. Each is
// a syscall.Conn, too. To close one takes it out of the group: its queue is lost
// then, as with any listener; Drain is for all of them.
func (g *Group) Listeners() []net.Listener {
	list := make([]net.Listener, len(g.listeners))
	for i, l := range g.listeners {
		list[i] = l
	}
	return list
}

// Serve calls serve once for each listener, as with http.Server.Serve, and returns
// when all calls have. It returns nil if that is because of Drain or Close, and an
// error that wraps [net.ErrClosed] if they were over before it was called. If
// a call ends before, its listener would still get its share of the connections:
// the group is closed then, and Serve returns that call's error. If a call ends
// because its listener was closed, the others go on, and Serve returns that call's
// error when they have ended, too.
func (g *Group) Serve(serve func(net.Listener) error) error {
	if g.openListener() == nil { // while Drain waits there is still work to do
		return g.closedError("accept")
	}
	var calls sync.WaitGroup
	var first error
	var once sync.Once
	for _, l := range g.listeners {
		calls.Go(func() {
			err := serve(l)
			if g.isEnded() {
				return
			}
			once.Do(func() {
				if first = err; first == nil {
					first = errors.New("group: a call of serve ended, and its listener with it")
				}
			})
			if !l.isEnded() {
				g.Close()
			}
		})
	}
	calls.Wait()
	return first
}

func (g *Group) isEnded() bool { return g.ended.Err() != nil }

func (g *Group) closedError(op string) error {
	return &net.OpError{Op: op, Net: g.network, Addr: g.Addr(), Err: net.ErrClosed}
}

// begin marks the group as ended; it fails if it was. A TakeOver under way fails.
func (g *Group) begin(op string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isEnded() {
		return g.closedError(op)
	}
	g.finish()
	return nil
}

// takeTurn waits until no TakeOver, Drain or Close is under way.
func (g *Group) takeTurn() { g.turn <- struct{}{} }

func (g *Group) endTurn() { <-g.turn }

// Close closes the group at once. What is queued is lost.
func (g *Group) Close() error {
	if err := g.begin("close"); err != nil {
		return err
	}
	g.stopHolding()
	g.takeTurn()
	defer g.endTurn()
	return g.closeAll()
}

// TakeOver sends the connections whose SYN arrives after its return to the newest
// listeners of this address, as many as members says; 0 means this group's own. In
// a generation of several processes each listens, and then exactly one calls
// TakeOver with the number of all their listeners. Handshakes under way finish
// where they began.
//
// The steering ends by itself when the listeners from before are closed, at the
// latest after Config.HoldFor. Until then other processes of the same user that
// listen on this address wait, and so does TakeOver for them, until ctx ends.
//
// Where the listener bound last gets the connections anyway, TakeOver makes sure that
// it is one of this group, and that is all: of a generation's processes the one that
// listened last calls it, and nobody waits.
//
// An error means that nothing is steered. It wraps [errors.ErrUnsupported] where the
// kernel does not let new connections be steered (see the package comment);
// [net.ErrClosed] after Drain or Close; [os.ErrInvalid] if there are fewer listeners
// than members, as far as that can be seen, or the group has more.
func (g *Group) TakeOver(ctx context.Context, members int) error {
	if members < 0 || members > 0 && members < len(g.listeners) {
		return fmt.Errorf("group: %w: %d members, and the group has %d listeners", os.ErrInvalid, members, len(g.listeners))
	}
	return g.takeOver(ctx, members)
}

// Drain waits for the handshakes under way and until the accept loops, which go on,
// have emptied what is queued, and closes the group. Accept returns net.ErrClosed
// then, and Serve nil. A server of net/http is shut down afterwards, when none of
// its connections is StateNew or StateActive.
//
// If the successor dies meanwhile, this group gets the connections again, and goes on
// until another has taken over, or ctx ends.
//
// It returns nil only if a successor has verified that it has taken over, no
// handshake known before was left, and the queues were empty just before the close.
// Otherwise the error says why, and how many connections were abandoned. At the end
// of ctx what is left is abandoned.
//
// Without a successor, the listeners are hidden from new connections first. If others
// share the address, on Linux some clients then wait 1 or 2 s, until they try again and
// the kernel chooses another listener (measured, 6.18).
//
// On FreeBSD, OpenBSD, NetBSD and macOS a successor is known by a file in the
// directory for temporary files, which both processes must share; and but for FreeBSD,
// where handshakes belong to no listener, they cannot be seen and Drain always waits
// for as long as Config.Handshake says. On the systems where TakeOver is unsupported
// Drain closes the group, and the error wraps [errors.ErrUnsupported].
func (g *Group) Drain(ctx context.Context) error { return g.drainAll(ctx) }

// DrainListener drains and closes a plain TCP listener, such as that of a server
// whose successor has a Group. Its Accept loop goes on meanwhile. The conditions
// for a nil error are those of [Group.Drain]; where the listener bound last gets the
// connections, the plain one must be older than the Group, which nothing can check.
// A member of a group is refused.
func DrainListener(ctx context.Context, l net.Listener) error { return drainListener(ctx, l) }

// closeAll closes what is open, and undoes what TakeOver has left.
func (g *Group) closeAll() error {
	errs := []error{g.detachHold()}
	members, left := g.takeMembers()
	for _, m := range members {
		errs = append(errs, m.close())
	}
	g.end(members, left)
	g.releaseHold()
	return errors.Join(errs...)
}

func (g *Group) takeMembers() (members, left []*member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	members, left = g.members, g.left
	g.members, g.left = nil, nil
	return members, left
}

// end makes Accept return net.ErrClosed, and waits for the members' goroutines. The
// members are closed already.
func (g *Group) end(members, left []*member) {
	for _, l := range g.listeners {
		l.end()
	}
	if g.rescued != nil {
		<-g.rescued
	}
	for _, m := range members {
		<-m.done
	}
	for _, m := range left {
		<-m.done
	}
	for _, l := range g.listeners {
		l.abandonKept()
	}
}
