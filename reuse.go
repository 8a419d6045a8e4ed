package reuse

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// A Setting is what a [Config] asks of one option.
type Setting uint8

// What can be asked of an option.
const (
	Default Setting = iota // leave it as package net and the kernel set it
	On                     // set it; fail where this system or this socket lacks it
	Off                    // clear it; nothing to do where it does not exist
	Prefer                 // set it where it exists, carry on where it does not
)

// String returns the setting's name, or "Setting(n)" for a value that has none.
func (s Setting) String() string {
	switch s {
	case Default:
		return "Default"
	case On:
		return "On"
	case Off:
		return "Off"
	case Prefer:
		return "Prefer"
	}
	return "Setting(" + strconv.Itoa(int(s)) + ")"
}

// wanted tells whether the option is to be set, if it can be.
func (s Setting) wanted() bool { return s == On || s == Prefer }

// An Option names one field of [Config] in errors and probes.
type Option uint8

// The options, one for each field of [Config].
const (
	Addr Option = iota + 1
	Port
	PortLB
	Exclusive
	DeferPort

	lastOption = DeferPort
)

// String returns the option's name, or "Option(n)" for a value that has none.
func (o Option) String() string {
	switch o {
	case Addr:
		return "Addr"
	case Port:
		return "Port"
	case PortLB:
		return "PortLB"
	case Exclusive:
		return "Exclusive"
	case DeferPort:
		return "DeferPort"
	}
	return "Option(" + strconv.Itoa(int(o)) + ")"
}

// Supported reports whether the running system has the option for at least some
// network and address. It returns nil if so. If the system has not, the error
// is an [*OptionError] that [errors.Is] finds as [errors.ErrUnsupported]. Any
// other error is inconclusive, for example because no descriptor was free; a later
// call probes again.
//
// Where the build alone does not decide, Supported sets the option on a socket
// that it does not bind, reads it back, and keeps the answer. The answer is not
// about a given address: PortLB, for example, is supported on FreeBSD, but not for
// a dual-stack address.
func (o Option) Supported() error {
	if o < Addr || o > lastOption {
		return &OptionError{Op: "probe", Option: o, Err: os.ErrInvalid}
	}
	if err := probed(o); err != nil {
		return &OptionError{Op: "probe", Option: o, Err: err}
	}
	return nil
}

// A Config says which address-sharing options a socket has. Its zero
// value asks for nothing and behaves like package net. Configs can be compared.
//
// A field that is On is in force on the socket that Listen, ListenPacket or Dial
// returns, or the call fails with an [*OptionError]. What is set is read back until
// that has shown its effect once in this process.
//
// What each field does is said here in short; docs/semantics.md has every pair of
// addresses and options, on each system.
type Config struct {
	// Addr is SO_REUSEADDR, on every system that has sockets.
	//
	// It permits a bind to an address on which connections of an earlier
	// listener remain (TIME_WAIT, or still open), so that a server restarts at
	// once. Only the new socket needs it on BSD, macOS, Solaris and illumos; on
	// Linux the old one must have had it too. Package net already sets it on
	// every stream listener except on Windows, and on multicast UDP sockets; so
	// a server that only wants to restart needs nothing from this package.
	//
	// What else it permits:
	//   - Linux, Android: a bind beside any socket that has it too and is not
	//     listening. There is no user check: another user's UDP socket with
	//     SO_REUSEADDR shares the port, and the socket bound last takes the
	//     unicast datagrams (measured, 5.10 to 6.18). On UDP, set it for
	//     multicast only.
	//   - FreeBSD, OpenBSD, NetBSD, DragonFly, macOS: a specific address beside
	//     a wildcard and the reverse, whatever the other socket has set, by the
	//     same user; on NetBSD by any user for IPv6. Never the same address twice,
	//     except multicast ones (measured on FreeBSD 14.0 and NetBSD 7.99, others
	//     from source).
	//   - Windows: a bind to an address that another socket, of any user that has
	//     access, already uses with it; who gets the traffic is undefined (Microsoft,
	//     "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE"). TIME_WAIT does not block
	//     a bind there (package net, sockopt_windows.go), so there is hardly a use
	//     for it.
	//   - Solaris, illumos: a UDP port that is taken, always; no user check
	//     (source: illumos udp_do_bind).
	Addr Setting

	// Port is SO_REUSEPORT: several sockets may bind one address, if every one
	// of them, the first included, sets it. Who gets the traffic is the
	// system's business; see PortLB. Package net sets it only on multicast UDP
	// sockets, on BSD, macOS and AIX.
	//
	//   - Linux 3.9 and later, Android: all sockets must belong to one effective
	//     user (that of the socket call). New connections and datagrams are
	//     hashed over the sockets (measured, 5.10 to 6.18). gVisor checks no user:
	//     any process in the sandbox may join (measured, May 2026).
	//   - FreeBSD, OpenBSD, NetBSD: the socket bound last gets everything
	//     (measured on FreeBSD 14.0 and NetBSD 7.99 to 10.99; OpenBSD from source). On
	//     NetBSD a UDP socket on IPv4 gets it also when it has sent last. Up to
	//     FreeBSD 13 the one bound first on a wildcard address gets it (source). One
	//     user, except that NetBSD lets any user join a wildcard address, and checks
	//     no user for IPv6 and mapped addresses.
	//   - macOS, iOS: the socket bound last on a specific address, the first on
	//     the wildcard; any user may join a wildcard address (source: xnu-11417).
	//   - DragonFly: hashed over the sockets on IPv4, as on macOS on IPv6 (source).
	//   - AIX: the first listener, unless soreuseport_lb is set (IBM's support page).
	//   - Solaris 11 and later. Unsupported on Windows and illumos: SO_REUSEADDR
	//     is no substitute there, and is never used as one.
	//
	// When one of several listeners closes, the kernel resets the connections
	// that were queued on it and not yet accepted: Linux, unless
	// net.ipv4.tcp_migrate_req is 1, FreeBSD and NetBSD (measured), OpenBSD and macOS
	// (source). DragonFly gives them to another listener (source); what other
	// systems do is not known. And a listener is closed only when every
	// descriptor of it is: while its process forks, the child has one until it
	// calls exec, and connections that arrive then are reset, too (29 of 12,000
	// with a process that starts children without pause, measured on Linux 6.18).
	Port Setting

	// PortLB asks for what SO_REUSEPORT does on Linux: several sockets may bind
	// one address and the kernel spreads new connections, or flows of datagrams,
	// over them. Every socket must set it. Multicast datagrams are not spread
	// but copied to all.
	//
	//   - Linux, Android: SO_REUSEPORT. gVisor checks no user, as for Port.
	//   - FreeBSD 12 and later: SO_REUSEPORT_LB. Unsupported on a dual-stack
	//     address, as in Listen("tcp", ":80"), which joins no group: use "tcp4"
	//     or "tcp6" (measured on 14.0). The 257th socket of a group binds and
	//     gets nothing (source). On 14.0 any user may join a wildcard group, and
	//     a socket that is bound and does not listen yet refuses its share (measured).
	//   - DragonFly: SO_REUSEPORT, IPv4 only (source).
	//   - Solaris 11.4: SO_REUSEPORT with SO_REUSEADDR cleared, which would turn
	//     balancing off; so Addr On is refused beside it (source: libuv).
	//   - Unsupported elsewhere.
	//
	// The choice is a hash of the addresses and ports: it is blind to load, and
	// a socket that does not accept still gets its share. PortLB is for
	// listeners; Dial and Dialer refuse it.
	PortLB Setting

	// Exclusive keeps the traffic of an address for this socket: as long as it lives,
	// no other socket gets a connection or datagram that is sent to the address,
	// whichever user it belongs to, whatever it sets and however often it binds. It
	// contradicts Addr, Port and PortLB. A kernel that cannot guarantee it for the
	// address makes On an error. Prefer then clears what shares where that helps
	// (Linux), and succeeds.
	//
	//   - Windows: SO_EXCLUSIVEADDRUSE. Without it any process of the same user
	//     may bind a more specific address, or use SO_REUSEADDR on the same port as
	//     a socket that has it. A service should set it (Microsoft, as above).
	//   - Solaris, illumos: SO_EXCLBIND. A restart then has to wait until the
	//     connections of the old listener are closed.
	//   - Linux, Android: the kernel guarantees it for a dual-stack :: (Listen with
	//     "tcp" and ":80"), and for TCP on a specific address and in Dial (measured, 5.10
	//     to 6.18). Elsewhere, TCP on 0.0.0.0 or an IPv6-only :: and every other UDP
	//     socket, dialed ones included, another user who binds several times takes
	//     traffic (measured; UDP on 0.0.0.0, on IPv6 and in Dial on 6.18). There On is
	//     unsupported, except for a listener on a port that other users may not bind
	//     (net.ipv4.ip_unprivileged_port_start). That does not keep off another user's
	//     process that has CAP_NET_BIND_SERVICE.
	//     There is no option for it: what shares is cleared. A TCP listener keeps the
	//     SO_REUSEADDR that package net sets, and restarts at once; if the trial that is
	//     described below finds nothing out, it does not, as on gVisor. On a specific
	//     address another user can prevent the restart, and get the traffic then. For
	//     a socket that is bound to a device nothing is guaranteed, and On is an error
	//     that wraps ErrConflict. A dialed socket without a local address, or with
	//     DeferPort, gets its port when it connects, and other outgoing connections may
	//     have the same one.
	//   - gVisor (GOOS linux): likewise. SO_REUSEADDR on a TCP listener admits other
	//     users' listeners there. A trial finds that out, once in a process, and On
	//     clears it: a restart has to wait for TIME_WAIT. That is done also where the
	//     trial finds nothing out.
	//   - OpenBSD, NetBSD, macOS, iOS: guaranteed for a specific address. Unsupported
	//     for a wildcard address and in Dial, where a socket with SO_REUSEADDR can be
	//     bound to a specific one, or to the same.
	//   - FreeBSD: unsupported. A wildcard SO_REUSEPORT_LB listener takes the
	//     traffic of a specific address (measured, 14.0).
	//   - AIX, DragonFly: unsupported, as what the kernel guarantees is unverified.
	Exclusive Setting

	// DeferPort lets a dialed TCP socket with a local address and port 0 choose
	// its local port when it connects instead of when it binds. Then the port
	// need only be free for the one destination, so that one local address can
	// hold more connections than there are ephemeral ports. Anything but a TCP
	// dial with a local address and port 0 is refused.
	//
	//   - Linux 4.2 and later, Android: IP_BIND_ADDRESS_NO_PORT, on IPv6 sockets
	//     too. gVisor has no such option and says nothing when it is set: On is
	//     unsupported there.
	//   - Windows 10, Server 2016 and later: SO_REUSE_UNICASTPORT.
	//   - Unsupported elsewhere.
	DeferPort Setting
}

// get returns the setting of an option.
func (c Config) get(o Option) Setting {
	switch o {
	case Addr:
		return c.Addr
	case Port:
		return c.Port
	case PortLB:
		return c.PortLB
	case Exclusive:
		return c.Exclusive
	}
	return c.DeferPort
}

// set changes the setting of an option.
func (c *Config) set(o Option, s Setting) {
	switch o {
	case Addr:
		c.Addr = s
	case Port:
		c.Port = s
	case PortLB:
		c.PortLB = s
	case Exclusive:
		c.Exclusive = s
	case DeferPort:
		c.DeferPort = s
	}
}

// String lists the fields that are not Default, as in "Addr=Off,Port=On". For
// the zero Config it returns "Default".
func (c Config) String() string {
	if c == (Config{}) {
		return Default.String()
	}
	var b strings.Builder
	for o := Addr; o <= lastOption; o++ {
		if s := c.get(o); s != Default {
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			b.WriteString(o.String() + "=" + s.String())
		}
	}
	return b.String()
}

// Check tells whether the Config makes sense in itself. The verdict depends on
// the Config alone and is the same on every system.
//
// The error is an [*OptionError]. It wraps [ErrConflict] if Exclusive is On or
// Prefer together with Addr, Port or PortLB On or Prefer, or if one of Port and
// PortLB is On or Prefer and the other Off; and [os.ErrInvalid] if a field has
// a value that is no Setting.
func (c Config) Check() error {
	for o := Addr; o <= lastOption; o++ {
		if s := c.get(o); s > Prefer {
			return &OptionError{Op: "check", Option: o, Err: fmt.Errorf("%w: %v", os.ErrInvalid, s)}
		}
	}
	if c.Exclusive.wanted() {
		for o := Addr; o < Exclusive; o++ {
			if c.get(o).wanted() {
				return conflict(Exclusive, c.Exclusive, o, c.get(o))
			}
		}
	}
	if c.Port.wanted() && c.PortLB == Off || c.PortLB.wanted() && c.Port == Off {
		return conflict(PortLB, c.PortLB, Port, c.Port)
	}
	return nil
}

func conflict(a Option, as Setting, b Option, bs Setting) error {
	return &OptionError{Op: "check", Option: a, Err: fmt.Errorf("%w: %v %v with %v %v", ErrConflict, a, as, b, bs)}
}

// Control sets the options on a socket that is not bound yet. It is the Control
// function of a [net.ListenConfig], and for listeners only: for a [net.Dialer]
// use [Config.Dialer], as Control is not told which of the two it serves. It
// keeps no state, may be called again for the same socket and from several
// goroutines.
//
// It fails with an [*OptionError] if Check does, if an option that is On does
// not exist on this system or for this socket (found as [errors.ErrUnsupported]),
// or if the kernel refuses it; the errno can be found with [errors.Is]. On unix
// and ip networks every option that is On is unsupported, and so is DeferPort On.
// On Linux, where the kernel could give out a port that another sharing socket has,
// Addr, Port or PortLB On or Prefer is an error for UDP with port 0, which wraps
// [os.ErrInvalid]: use [Config.ListenPacket], or a port.
//
// A Control function that runs later on the same socket can undo what this one set.
// [Config.ListenConfig] and [Config.Dialer] look again after that.
//
// On js, wasip1 and plan9 package net never calls a Control function for
// a listener, so an option that is On would be ignored: prefer [Config.Listen]
// or [Config.ListenConfig], which find that out.
func (c Config) Control(network, address string, rc syscall.RawConn) error {
	s := optionSetter{config: c}
	return s.control(network, address, rc)
}

// Inspect reports the bits of a socket's options, not what they mean: On or Off for
// each field that has an option number on this system, Default for the others. Where
// Port and PortLB are one bit, both report it. Exclusive is Default where there is no
// option for it, even if the kernel guarantees it. The result need not pass Check:
// a plain listener of package net has Addr On on every system but Windows. On gVisor
// an option that was set after the bind reads On and has no effect.
//
// sc is a listener, packet connection, connection or file that has a socket.
// A [net.Listener] or [net.Conn] is no syscall.Conn by itself, but those of package
// net are: assert it.
//
// For a nil sc the error wraps [syscall.EINVAL], for a closed one [net.ErrClosed].
func Inspect(sc syscall.Conn) (Config, error) {
	// The connections of package net panic when they are a nil pointer.
	if v := reflect.ValueOf(sc); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return Config{}, inspectError(syscall.EINVAL)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return Config{}, inspectError(err)
	}
	if rc == nil {
		return Config{}, inspectError(syscall.EINVAL)
	}
	var c Config
	var optErr error
	if err := rc.Control(func(fd uintptr) { c, optErr = inspect(fd) }); err != nil {
		if f, ok := sc.(*os.File); ok { // its RawConn has an unexported error for that
			if _, readErr := f.Read(nil); errors.Is(readErr, os.ErrClosed) {
				err = fmt.Errorf("%w: %w", net.ErrClosed, err)
			}
		}
		return Config{}, inspectError(err)
	}
	if optErr != nil {
		return Config{}, inspectError(optErr)
	}
	return c, nil
}

func inspectError(err error) error { return fmt.Errorf("reuse: inspect: %w", err) }

var (
	// ErrConflict is wrapped by the error for a Config that contradicts itself, or
	// that the caller's own Control function contradicts.
	ErrConflict = errors.New("contradictory options")

	// ErrTupleInUse is wrapped by the error of Config.Dial if a connection from
	// that local address and port to that remote address and port exists already,
	// perhaps in TIME_WAIT. The errno, which differs from system to system, can be
	// found too.
	ErrTupleInUse = errors.New("a connection with these two addresses exists already")

	// ErrSelfDial is wrapped by the error of Config.Dial if the socket was
	// connected to itself, which a kernel permits when the local and the remote
	// address are the same; Linux does even if somebody listens there and shares
	// the port (measured, 6.18).
	ErrSelfDial = errors.New("connected to itself")
)

// An OptionError reports an option that could not be set, cleared or read. From
// Listen, ListenPacket and Dial it comes inside a [*net.OpError], where [errors.As]
// finds it.
type OptionError struct {
	Op     string // "check", "set", "clear", "get" or "probe"
	Option Option
	Err    error // the reason; an errno is inside an *os.SyscallError
}

// Error names the operation, the option, the system and the reason.
func (e *OptionError) Error() string {
	s := "reuse: " + e.Op + " " + e.Option.String()
	if e.Op != "check" { // which is the same on every system
		s += " on " + runtime.GOOS
	}
	if e.Err == nil {
		return s
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *OptionError) Unwrap() error { return e.Err }

// Is reports that e is [errors.ErrUnsupported] if the system, or this kind of
// socket, lacks the option, whichever errno it has for that.
func (e *OptionError) Is(target error) bool {
	return target == errors.ErrUnsupported && e.Err != nil && isUnsupported(e.Err)
}

// An unsupportedReason says why this system or this socket cannot have an option.
type unsupportedReason string

func (r unsupportedReason) Error() string { return "unsupported: " + string(r) }

func (r unsupportedReason) Is(target error) bool { return target == errors.ErrUnsupported }

// A misuse is what a call gets wrong, which says nothing about the system.
type misuse string

func (m misuse) Error() string { return string(m) }

func (m misuse) Is(target error) bool { return target == os.ErrInvalid }

// opError puts err where users of package net look for it.
func opError(op, network string, err error) error {
	return &net.OpError{Op: op, Net: network, Err: err}
}
