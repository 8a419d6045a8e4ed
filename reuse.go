package reuse

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"example.com/reuse/internal/sockopt"
)

// A Setting is what a [Config] requests for one option.
type Setting uint8

// The settings of an option.
const (
	Default Setting = iota // leave it as package net and the kernel set it
	On                     // set it; fail where this system or this socket lacks it
	Off                    // clear it; no effect where it does not exist
	Prefer                 // set it where it exists, carry on where it does not
)

// String returns the setting's name, or "Setting(n)" for a value that has none.
func (s Setting) String() string {
	return name("Setting", int(s), "Default", "On", "Off", "Prefer")
}

func name(of string, n int, names ...string) string {
	if n < len(names) && names[n] != "" {
		return names[n]
	}
	return of + "(" + strconv.Itoa(n) + ")"
}

// wanted reports whether the option is set, if it can be.
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
	return name("Option", int(o), "", "Addr", "Port", "PortLB", "Exclusive", "DeferPort")
}

// Supported reports whether the running system has the option for at least some
// network and address. It returns nil if so. If the system lacks the option, the
// error is an [*OptionError] that [errors.Is] finds as [errors.ErrUnsupported]. Any
// other error is inconclusive, for example because no descriptor was free; a later
// call probes again.
//
// Where the build alone does not decide, Supported sets the option on an unbound
// socket, reads the option back, and keeps the result. The result does not depend on
// the address: PortLB is supported on FreeBSD, though not for a dual-stack address.
func (o Option) Supported() error {
	if o < Addr || o > lastOption {
		return &OptionError{Op: "probe", Option: o, Err: os.ErrInvalid}
	}
	if err := o.probe(); err != nil {
		return &OptionError{Op: "probe", Option: o, Err: err}
	}
	return nil
}

// A Config selects the address-sharing options of a socket. The zero Config sets
// nothing and behaves like package net. Configs can be compared.
//
// A field that is On is in force on the socket that Listen, ListenPacket or Dial
// returns, or the call fails with an [*OptionError]. Where a field is unsupported,
// [errors.Is] finds the error as [errors.ErrUnsupported], and Prefer continues
// without it. docs/semantics.md has the result of every pair of addresses and
// options on each system.
type Config struct {
	// Addr is SO_REUSEADDR, on every system that has sockets. It permits a bind
	// while connections of an earlier listener remain. Package net sets it on
	// stream listeners except on Windows, so a restart does not need this field.
	// On UDP it lets sockets of any user share the port on Linux, Solaris and
	// illumos. On Windows it lets a socket of any user take the traffic of
	// another socket that has it.
	Addr Setting

	// Port is SO_REUSEPORT: several sockets may bind one address if each of them,
	// the first included, sets it. Linux (for one user) and DragonFly (IPv4) spread
	// new connections. The other BSDs, macOS and by default AIX give all to one
	// socket. On Linux (unless net.ipv4.tcp_migrate_req is 1), FreeBSD, NetBSD, OpenBSD
	// and macOS a listener that closes resets the connections in its accept queue.
	// Port is unsupported on Windows and illumos.
	Port Setting

	// PortLB lets sockets that all set it share an address. The kernel spreads new
	// connections and flows of datagrams by a hash, whatever the load. PortLB is
	// SO_REUSEPORT on Linux, on DragonFly for IPv4, and on Solaris from 11.4, where it is
	// unsupported with Addr On. It is SO_REUSEPORT_LB on FreeBSD from 12. A dual-stack
	// address, as in Listen with "tcp" and ":80", is unsupported there: use "tcp4" or
	// "tcp6". PortLB is unsupported elsewhere and in Dial.
	PortLB Setting

	// Exclusive prevents every other socket, of any user, from getting the traffic
	// of the address while this socket lives. It is SO_EXCLUSIVEADDRUSE on Windows,
	// where a service should set it, and SO_EXCLBIND on Solaris and illumos. On Linux
	// it clears the sharing options, except SO_REUSEADDR of a TCP listener, so a restart
	// works. It contradicts Addr, Port and PortLB. It is unsupported where the kernel
	// cannot guarantee it: docs/exclusive.md has the list.
	Exclusive Setting

	// DeferPort lets a dialed TCP socket with a local address and port 0 choose
	// its port when it connects, not when it binds. One local address can then
	// hold more connections than there are ephemeral ports. It is
	// IP_BIND_ADDRESS_NO_PORT on Linux from 4.2, and SO_REUSE_UNICASTPORT on Windows
	// from 10 and Server 2016. It is unsupported elsewhere, as on gVisor, and for
	// every other socket.
	DeferPort Setting
}

func (c Config) get(o Option) Setting { return *c.field(o) }

// field returns the field of an option.
func (c *Config) field(o Option) *Setting {
	switch o {
	case Addr:
		return &c.Addr
	case Port:
		return &c.Port
	case PortLB:
		return &c.PortLB
	case Exclusive:
		return &c.Exclusive
	}
	return &c.DeferPort
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

// Check reports whether the Config contradicts itself. The result depends on the
// Config alone and is the same on every system.
//
// The error is an [*OptionError]. It wraps [ErrConflict] if Exclusive is On or
// Prefer together with Addr, Port or PortLB On or Prefer, or if one of Port and
// PortLB is On or Prefer and the other Off. It wraps [os.ErrInvalid] if a field has
// a value that is not a Setting.
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

// Control sets the options on a socket before its bind. It is the Control function
// of a [net.ListenConfig]. For a [net.Dialer] use [Config.Dialer], because Control
// cannot tell a dial from a listen. Control keeps no state, and can be called again
// for the same socket and from several goroutines.
//
// An error about an option is an [*OptionError]. Control fails if Check fails, if an option that is
// On is unsupported on this system or for this socket (found as
// [errors.ErrUnsupported]), or if the kernel refuses the option (the errno is found
// with [errors.Is]). DeferPort On is unsupported, and so is every option On for unix
// and ip networks. On Linux Addr, Port and PortLB On or Prefer fail for UDP with port 0,
// with an error that wraps [os.ErrInvalid], because the kernel may choose a port that
// another socket shares. Use [Config.ListenPacket], or a port.
//
// Exclusive Prefer clears on Linux what Exclusive On clears, also for addresses for
// which that is unsupported.
//
// A Control function that runs later on the same socket can undo what this one set.
// [Config.ListenConfig] and [Config.Dialer] check the options again after that.
//
// On js, wasip1 and plan9 package net never calls a Control function for
// a listener. Use [Config.Listen] or [Config.ListenConfig], which return an error
// there for an option that is On.
func (c Config) Control(network, address string, rc syscall.RawConn) error {
	s := optionSetter{config: c}
	return s.control(network, address, rc)
}

// Inspect returns the options that are set on a socket: On or Off for each field that
// has an option number on this system, Default for the others. Port and PortLB are
// equal where they have the same number. Exclusive is Default where it has no option,
// even if the kernel guarantees it. The result need not pass Check: a listener of
// package net has Addr On except on Windows. On gVisor an option that was set after
// the bind reads On and has no effect.
//
// sc is a listener, packet connection, connection or file that has a socket. The
// listeners and connections of package net implement [syscall.Conn]: use a type
// assertion.
//
// For a nil sc the error wraps [syscall.EINVAL], for a closed one [net.ErrClosed].
func Inspect(sc syscall.Conn) (Config, error) {
	c, err := inspect(sc)
	if err != nil {
		return Config{}, fmt.Errorf("reuse: inspect: %w", err)
	}
	return c, nil
}

func inspect(sc syscall.Conn) (c Config, err error) {
	// The connections of package net panic when they are a nil pointer.
	if v := reflect.ValueOf(sc); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return c, syscall.EINVAL
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return c, err
	}
	if rc == nil {
		return c, syscall.EINVAL
	}
	err = sockopt.Control(rc, func(fd uintptr) (err error) {
		for o := Addr; o <= lastOption && err == nil; o++ {
			*c.field(o), err = o.read(fd)
		}
		return err
	})
	if f, ok := sc.(*os.File); ok && err != nil { // its RawConn has an unexported error for a closed file
		if _, seekErr := f.Seek(0, io.SeekCurrent); errors.Is(seekErr, os.ErrClosed) {
			err = fmt.Errorf("%w: %w", net.ErrClosed, err)
		}
	}
	return c, err
}

var (
	// ErrConflict is wrapped by the error for a Config that contradicts itself or
	// the caller's own Control function, or that has Exclusive On for a socket that
	// is bound to a device.
	ErrConflict = errors.New("contradictory options")

	// ErrTupleInUse is wrapped by the error of Config.Dial if a connection with the
	// same four-tuple exists already, perhaps in TIME_WAIT. The error also wraps the
	// errno, which differs between systems.
	ErrTupleInUse = errors.New("a connection with these two addresses exists already")

	// ErrSelfDial is wrapped by the error of Config.Dial if the socket connected to
	// itself. A kernel permits that when the local and the remote address are the
	// same, on Linux even while a listener shares the port (6.18).
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

// Is reports whether target is [errors.ErrUnsupported] and the system, or this kind of
// socket, lacks the option, with any errno.
func (e *OptionError) Is(target error) bool {
	return target == errors.ErrUnsupported && e.Err != nil && isUnsupported(e.Err)
}

// An unsupportedReason is why this system or this socket cannot have an option.
type unsupportedReason string

func (r unsupportedReason) Error() string { return "unsupported: " + string(r) }

func (r unsupportedReason) Is(target error) bool { return target == errors.ErrUnsupported }

// opError wraps err as package net does.
func opError(op, network string, err error) error {
	return &net.OpError{Op: op, Net: network, Err: err}
}
