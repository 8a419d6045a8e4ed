package inuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// A Report says why an address could not be had. Its texts do nothing to a terminal,
// whatever the processes are called; the Holders' Commands are as they are.
type Report struct {
	Network, Address string   // as in the error; of a dialed socket that cannot bind, its own
	Holders          []Holder // as from [Holders]; none if that is not what went wrong
	Reason           string   // one or more sentences
	Advice           []string // a sentence each, what is best first
}

// Explain says why a listener, packet connection or connection could not be had. c is
// the Config that was asked for, the zero Config if none; err comes from this
// library or from package net.
//
// The Reason of an address in use is the rule of this kernel that refuses the bind,
// and Advice names the Config that would have been admitted beside the Holders there
// are, or says that there is none. No system tells which options another process
// has set: what follows from the sockets there are and from the refusal is drawn as
// a conclusion, and what else a Config depends on stands in the Advice, as in "works
// if pid 4211 set SO_REUSEPORT too". Also explained are permission denied, an address
// that cannot be assigned, ephemeral ports that are used up, an address family that
// is missing, and the errors of options.
//
// The system may change between the error and the look: a Report says what is there
// now. Nothing is bound, and nothing is changed, to find out.
//
// A [*net.OpError] without Err asks what would refuse a bind that nobody has tried.
// Explain fails if err is neither that nor one of those errors. What cannot be seen
// on this system, or by this user, is no failure; the Report says so.
func Explain(ctx context.Context, c reuse.Config, err error) (*Report, error) {
	x := explainer{ctx: ctx, config: c, err: err, Report: &Report{}}
	if !errors.As(err, &x.op) {
		x.op = &net.OpError{}
	} else if x.op == nil {
		return nil, fmt.Errorf("inuse: %w: a nil *net.OpError", os.ErrInvalid)
	}
	x.dial = x.op.Op == "dial"
	x.Network = printable(x.op.Net)
	for _, a := range []net.Addr{x.op.Addr, x.op.Source} {
		if s := addressOf(a); s != "" && x.Address == "" {
			x.Address = printable(s)
		}
	}
	if err := x.explain(); err != nil {
		return nil, err
	}
	return x.Report, nil
}

// addressOf returns an address as text, "" for none, which may be a nil pointer.
func addressOf(a net.Addr) string {
	switch a := a.(type) {
	case nil:
		return ""
	case *net.TCPAddr:
		if a == nil {
			return ""
		}
	case *net.UDPAddr:
		if a == nil {
			return ""
		}
	}
	return a.String()
}

type explainer struct {
	*Report
	ctx    context.Context
	config reuse.Config
	err    error
	op     *net.OpError
	dial   bool
}

func (x *explainer) reason(format string, a ...any) { x.Reason = fmt.Sprintf(format, a...) }

func (x *explainer) advise(format string, a ...any) {
	x.Advice = append(x.Advice, fmt.Sprintf(format, a...))
}

func (x *explainer) explain() error {
	var option *reuse.OptionError
	switch {
	case x.err == nil:
		return fmt.Errorf("inuse: %w: there is no error to explain", os.ErrInvalid)
	case x.op.Op != "" && x.op.Err == nil:
		return x.inUse(false)
	case errors.Is(x.err, reuse.ErrSelfDial):
		x.reason("The local and the remote address of the connection are the same, %s, so the socket was connected to itself.", x.Address)
		x.advise("Dial from another local port, or from port 0.")
		return nil
	case errors.As(x.err, &option):
		x.option(option)
		return nil
	case !strings.HasPrefix(x.op.Net, "tcp") && !strings.HasPrefix(x.op.Net, "udp"):
		return fmt.Errorf("inuse: %w: only TCP and UDP are explained: %w", errors.ErrUnsupported, x.err)
	}
	switch failureOf(x.err) {
	case inUse:
		if x.dial && x.connecting() {
			return x.tupleInUse() // the BSDs, Windows
		}
		return x.inUse(true)
	case denied:
		return x.denied()
	case notAvailable:
		return x.notAvailable()
	case noFamily:
		x.reason("This kernel has no sockets of the family that %s on %s needs.", x.Network, x.Address)
		x.advise("Use a network that ends in the other digit, as in \"tcp4\", or none, as in \"tcp\".")
		return nil
	}
	return fmt.Errorf("inuse: nothing is known about this error: %w", x.err)
}

// connecting tells whether connect said the error, or connectex.
func (x *explainer) connecting() bool {
	var sys *os.SyscallError
	return errors.As(x.err, &sys) && strings.HasPrefix(sys.Syscall, "connect")
}

// option explains an option that could not be had.
func (x *explainer) option(e *reuse.OptionError) {
	x.reason("%s.", printable(strings.TrimPrefix(e.Error(), "reuse: ")))
	switch {
	case errors.Is(e, reuse.ErrConflict):
		x.advise("Ask for one of the two options: with both On the socket would share its address and keep it for itself.")
	case errors.Is(e, errors.ErrUnsupported):
		x.advise("%v: reuse.Prefer does without %v where there is none.", e.Option, e.Option)
	case errors.Is(e, os.ErrInvalid):
		x.advise("A Setting is Default, On, Off or Prefer.")
	case failureOf(e) == denied:
		x.advise("A filter of system calls, as of a container, may forbid setsockopt.")
	}
}

// local returns what the socket binds.
func (x *explainer) local() (target, error) {
	if !x.dial {
		return resolve(x.ctx, x.op.Net, addressOf(x.op.Addr))
	}
	source, remote := addrPort(x.op.Source), addrPort(x.op.Addr)
	t, err := bindTarget(strings.TrimRight(x.Network, "46")+"4", netip.Addr{}, source.Port())
	if err != nil {
		return t, err
	}
	t.local = netip.AddrPortFrom(source.Addr(), source.Port())
	if ip := source.Addr(); !ip.IsValid() || ip.IsUnspecified() {
		if ip = netip.IPv4Unspecified(); remote.Addr().Is6() {
			ip = netip.IPv6Unspecified()
			t.v6only = strings.HasSuffix(x.Network, "6")
		}
		t.local = netip.AddrPortFrom(ip, source.Port())
	}
	return t, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(addressOf(a))
	if err != nil { // ":8080"
		_, port, _ := net.SplitHostPort(addressOf(a))
		n, _ := strconv.ParseUint(port, 10, 16)
		return netip.AddrPortFrom(netip.Addr{}, uint16(n))
	}
	return netip.AddrPortFrom(named(p.Addr().Unmap()), p.Port())
}

// inUse explains a bind that other sockets refuse, or would.
func (x *explainer) inUse(refused bool) error {
	t, err := x.local()
	if err != nil {
		return fmt.Errorf("inuse: %w", err)
	}
	if t.local.Port() == 0 {
		return x.exhausted(t)
	}
	if x.dial {
		x.Address = t.local.String()
	}
	x.Holders, err = t.holders(x.ctx)
	if err != nil && (!refused || x.ctx.Err() != nil) {
		return fmt.Errorf("inuse: %w", err)
	}
	if err != nil {
		x.reason("A socket that overlaps %s is in the way. Which, cannot be seen: %v.", x.Address, err)
		x.advise("Use another port, or find the process with the system's own tools.")
		return nil
	}
	if x.dial && t.proto == semantics.TCP && x.exists(x.Holders, addrPort(x.op.Addr)) {
		return nil // which no option changes, though it might let the bind succeed
	}
	system, err := thisSystem()
	if err != nil {
		x.reason("%s. %v.", x.heldBy(nil), err)
		return nil
	}
	b := &bind{target: t, system: system, user: max(os.Geteuid(), 0), listens: !x.dial, refused: refused, asked: x.config}
	b.multicast = !x.dial && t.proto == semantics.UDP && addrPort(x.op.Addr).Addr().IsMulticast()
	x.decide(b)
	return nil
}

// decide finds the rule by which the holders refuse a bind.
func (x *explainer) decide(b *bind) {
	if len(x.Holders) == 0 {
		if !b.refused {
			x.reason("Nothing that is visible overlaps %s.", x.Address)
		} else {
			x.reason("Nothing that is visible overlaps %s now: what did has gone meanwhile, or is not shown.", x.Address)
			x.advise("Try again.")
		}
		x.Reason += unseen(b.proto)
		return
	}
	list := b.classes(x.Holders)
	b.learn(list, x.config)
	advice, verdicts := b.advise(list, x.config)
	x.Advice = advice
	suspects := stubborn(list, verdicts)
	named := len(suspects) > 0
	if !named {
		suspects = list
	}
	holder, why := b.culprit(suspects, x.config)
	if holder == nil {
		x.reason("%s.", x.heldBy(list[0]))
		if b.refused {
			x.Reason += " By " + b.system.Title() + "'s rules none of them refuses this bind: what did has gone meanwhile, or is not shown." + unseen(b.proto)
		}
	} else {
		x.reason("%s. %s", x.heldBy(holder), why.Rule.Text)
		if why.Known.How < semantics.Vendor {
			x.Reason += " (" + why.Known.How.String() + ")"
		}
		if b.user != holder.UID && holder.UID >= 0 && os.Geteuid() >= 0 {
			x.Reason += fmt.Sprintf(" Yours is uid %d.", b.user)
		}
	}
	h := list[0]
	if holder != nil {
		h = holder
	}
	hopeless := !slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.never })
	switch {
	case hopeless && b.trace():
		x.advise("No Config is sure to work beside %s.", h.subject())
	case hopeless && named:
		x.advise("No Config works beside %s.", h.subject())
	case hopeless:
		x.advise("No Config works beside these sockets.")
	}
	shares := slices.ContainsFunc(verdicts, func(v verdict) bool {
		return !v.never && !v.unknown && v.config.Port == reuse.On
	})
	x.release(b, h, hopeless, shares)
}

// release says what else helps than a Config, as h has the address: no Config works, or
// one that shares may.
func (x *explainer) release(b *bind, h *class, hopeless, shares bool) {
	another := "use another port."
	if x.dial {
		another = "dial from another local port, or from port 0."
	}
	switch {
	case h.PID == os.Getpid() && x.dial:
		x.advise("This process has the address already: close that socket, or %s", another)
	case h.PID == os.Getpid():
		x.advise("This process has the address already: use that socket, or close it.")
	case h.orphan && !h.queued():
		x.advise("The kernel frees the port when it forgets the connection; TIME_WAIT lasts a minute on Linux.")
	case h.State == listen && shares && h.PID != 0 && h.UID == b.user && !x.dial && runtime.GOOS == "linux":
		x.advise("If pid %d is an older process of this server, package group takes the address over from it, with TakeOver here and Drain there.", h.PID)
	case hopeless:
		x.advise("End the process, or %s", another)
	default:
		x.advise("Otherwise end the process, or %s", another)
	}
}

// heldBy begins a Reason: which holder it is, or the first.
func (x *explainer) heldBy(c *class) string {
	if c == nil {
		c = &class{Holder: x.Holders[0]}
	}
	s := x.Address + " is held by " + c.String()
	if n := len(x.Holders) - 1; n == 1 {
		s += ", and 1 other socket"
	} else if n > 1 {
		s += fmt.Sprintf(", and %d other sockets", n)
	}
	return s
}

// tupleInUse explains a connection that exists already.
func (x *explainer) tupleInUse() error {
	local, remote := addrPort(x.op.Source), addrPort(x.op.Addr)
	x.reason("A connection from %s to %s exists already, perhaps in TIME_WAIT.", addressOf(x.op.Source), x.Address)
	x.advise("Dial from another local port, or from port 0.")
	t, err := x.local()
	if err != nil || local.Port() == 0 {
		return nil
	}
	list, err := t.holders(x.ctx)
	if x.ctx.Err() != nil {
		return fmt.Errorf("inuse: %w", x.ctx.Err())
	}
	if err != nil {
		x.Reason += fmt.Sprintf(" Whose it is cannot be seen: %v.", err)
		return nil
	}
	x.exists(list, remote)
	return nil
}

// exists explains that one of the holders is a connection to the same peer.
func (x *explainer) exists(list []Holder, remote netip.AddrPort) bool {
	remote = netip.AddrPortFrom(remote.Addr().WithZone(""), remote.Port())
	list = slices.DeleteFunc(slices.Clone(list), func(h Holder) bool { return h.Remote != remote })
	if len(list) == 0 {
		return false
	}
	x.Holders = list
	x.reason("A connection from %v to %v exists already, in %s: it is held by %s.", list[0].Local, remote, printable(list[0].State), list[0].who())
	x.Advice = []string{"Dial from another local port, or from port 0."}
	return true
}

// denied explains EACCES and the like.
func (x *explainer) denied() error {
	if x.dial && x.connecting() {
		x.reason("The system does not permit this process to connect to %s: a firewall, a security module or a filter of system calls may forbid it.", x.Address)
		return nil
	}
	t, err := x.local()
	if err != nil {
		return fmt.Errorf("inuse: %w", err)
	}
	if x.dial {
		x.Address = t.local.String()
	}
	port := t.local.Port()
	if first, ok := firstUnprivileged(); ok && port > 0 && int(port) < first {
		x.reason("Ports below %d are for processes with a privilege that this one, uid %d, lacks.", first, os.Geteuid())
		x.advise("%s", privileges(first))
		return nil
	}
	if runtime.GOOS == "windows" {
		x.reason("Windows refuses a bind in this way beside a socket that set SO_EXCLUSIVEADDRUSE, or of another user, and in a range of ports that is reserved.")
		if list, err := t.holders(x.ctx); err == nil && len(list) > 0 {
			x.Holders = list
			x.Reason = x.heldBy(nil) + ". " + x.Reason
		}
		x.advise("No Config works. End the process that has the port, or use another port.")
		return nil
	}
	x.reason("The system does not permit this process to bind %s: a security module or a filter of system calls may forbid it.", x.Address)
	x.advise("Look at what confines this process: SELinux, AppArmor, seccomp, a container's or a service's settings.")
	return nil
}

// notAvailable explains EADDRNOTAVAIL.
func (x *explainer) notAvailable() error {
	t, err := x.local()
	if err != nil {
		return fmt.Errorf("inuse: %w", err)
	}
	if x.connecting() {
		if t.local.Port() != 0 {
			return x.tupleInUse()
		}
		return x.exhausted(t)
	}
	if x.dial {
		x.Address = t.local.String()
	}
	ip := t.local.Addr()
	mine, err := isLocal(ip)
	switch {
	case err != nil:
		x.reason("%v is no address of this machine that a socket can bind. Which ones it has, cannot be seen: %v.", ip, err)
	case mine:
		x.reason("An interface has %v, but a socket cannot bind it now: an IPv6 address may still be checked for duplicates, or need a zone.", ip)
		x.advise("Try again in a second.")
		return nil
	default:
		x.reason("No interface of this machine, or of this network namespace, has the address %v.", ip)
	}
	if x.dial {
		x.advise("Dial from no address in particular, or from one that an interface has.")
		return nil
	}
	x.advise("Listen on the wildcard address, or on one that an interface has.")
	if runtime.GOOS == "linux" {
		x.advise("To bind an address before an interface gets it, set IP_FREEBIND on the socket, or net.ipv4.ip_nonlocal_bind.")
	}
	return nil
}

func isLocal(ip netip.Addr) (bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip.WithZone("") {
			return true, nil
		}
	}
	return false, nil
}

// exhausted explains that the kernel found no port by itself.
func (x *explainer) exhausted(t target) error {
	if x.op.Err == nil {
		return fmt.Errorf("inuse: %w: port 0 is any free port", os.ErrInvalid)
	}
	from := "on " + t.local.Addr().String()
	connecting := x.dial && x.connecting()
	if x.dial && !connecting {
		x.Address = t.local.String()
	}
	to := addrPort(x.op.Addr)
	match := func(netip.AddrPort) bool { return true }
	if connecting {
		from = "for connections to " + to.String()
		match = func(remote netip.AddrPort) bool { return !remote.IsValid() || remote == to }
	}
	first, last, taken, err := ephemeral(x.ctx, t, match)
	if x.ctx.Err() != nil {
		return fmt.Errorf("inuse: %w", x.ctx.Err())
	}
	if err != nil {
		x.reason("The kernel found no free port by itself. How many are taken cannot be seen: %v.", err)
	} else {
		x.reason("The kernel found no free port by itself: of the %d ephemeral ports, %d to %d, %d are taken %s.", last-first+1, first, last, taken, from)
	}
	if connecting && err == nil && taken <= last-first {
		x.Reason += " If that is few, no interface has an address from which to reach it."
	}
	if x.dial && !x.connecting() && x.config.DeferPort != reuse.On && reuse.DeferPort.Supported() == nil {
		c := x.config
		c.DeferPort = reuse.On
		x.advise("With %s on all of these connections a port need be free for one destination only.", literal(c))
	}
	if runtime.GOOS == "linux" {
		x.advise("Widen net.ipv4.ip_local_port_range, or use more local addresses.")
	} else {
		x.advise("Widen the system's range of ephemeral ports, or use more local addresses.")
	}
	return nil
}

// thisSystem returns the rules of the running system.
func thisSystem() (semantics.System, error) {
	release, version := uname()
	return semantics.On(runtime.GOOS, release, version)
}
