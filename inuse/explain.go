package inuse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// A Report contains why a bind failed, or would fail. Its texts have no effect on a
// terminal, whatever name a process has. The Commands of Holders are not escaped.
type Report struct {
	Network, Address string   // as in the error; the local address of a dial that bind refused
	Free             bool     // set by Check: nothing that is visible refuses the bind
	Holders          []Holder // as from [Holders]; none if the failure has another cause
	Reason           string   // one or more sentences
	Advice           []string // each one or two sentences, the best first
}

// Explain reports why Listen, ListenPacket or Dial failed. c is the Config of the call, or
// the zero Config. err comes from this library or from package net.
//
// The Reason of an address in use is the rule of this kernel that refuses the bind. The
// Advice is what the kernel's rules admit alongside the Holders: another Config, network,
// address or device, the same Config on the other socket, or a hand-over from its process.
// No system reports the options of another process's socket. Explain concludes them from
// the sockets and from the refusal. An Advice names the other conditions, as in "works if
// pid 4211 set SO_REUSEPORT".
//
// Explain also knows these causes: permission denied, an address that cannot be assigned,
// a link-local address without a zone, ephemeral ports or descriptors that are used up, a
// missing address family, and the errors of options. For Unix sockets it knows a stale
// file, a name in use, a path that is too long and a missing folder.
//
// The system can change between the error and the call. A Report describes the present.
// An err without a [*net.OpError] contains no address. Explain then reports the meaning of
// the errno, and advises [Check].
//
// Explain fails if err is nil, or if its errno is not about an address. It succeeds if this
// system does not show the sockets or, to this user, the processes. The Report then says so.
func Explain(ctx context.Context, c reuse.Config, err error) (*Report, error) {
	x := explainer{ctx: ctx, config: c, err: err, Report: &Report{}}
	var op *net.OpError
	if found := errors.As(err, &op); err == nil || found && op == nil {
		return nil, fmt.Errorf("inuse: %w: there is no error to explain", os.ErrInvalid)
	} else if found {
		x.network, x.source, x.local = op.Net, addressOf(op.Source), addressOf(op.Addr)
		if x.dial = op.Op == "dial"; x.dial {
			x.local, x.remote = "", x.local
		}
	}
	x.Network, x.Address = printable(x.network), printable(cmp.Or(x.local, x.remote, x.source))
	return x.report(x.explain())
}

// Check reports what now refuses a bind of an address by Listen or ListenPacket with c.
// network and address are those of the call, also "unix" and a path. Report.Free reports
// that nothing refuses the bind.
//
// Check sets the options of c on a socket that it does not bind. If Listen would refuse an
// option there, this is the Reason.
//
// Check does not bind the port. On Linux it binds a socket to the address alone, with
// IP_BIND_ADDRESS_NO_PORT. In two cases it binds ephemeral ports of the loopback for a
// moment, also on Linux. Without sock_diag it tries whether /proc/net/udp6 lists sockets.
// With Exclusive On or Prefer it tries, once in a process, what SO_REUSEADDR admits to a
// listener.
//
// The error wraps [errors.ErrUnsupported] where the sockets of this system cannot be
// read, and [os.ErrInvalid] for port 0, which is any free port.
func Check(ctx context.Context, c reuse.Config, network, address string) (*Report, error) {
	x := explainer{ctx: ctx, config: c, network: network, local: address,
		Report: &Report{Network: printable(network), Address: printable(address)}}
	return x.report(x.check())
}

type explainer struct {
	*Report
	ctx    context.Context
	config reuse.Config
	err    error // that the kernel returned; nil: Check
	dial   bool

	network, local, source, remote string // "": none
}

func (x *explainer) report(err error) (*Report, error) {
	if err = cmp.Or(x.ctx.Err(), err); err != nil {
		return nil, fmt.Errorf("inuse: %w", err)
	}
	return x.Report, nil
}

func (x *explainer) say(reason string, advice ...string) { x.Reason, x.Advice = reason, advice }

func (x *explainer) check() error {
	t, err := target{}, error(nil)
	if !isUnix(x.network) {
		if t, err = resolvePort(x.ctx, x.network, x.local); err != nil {
			return err
		}
	}
	var option *reuse.OptionError
	if err := setOptions(x.ctx, x.config, x.network, x.local); errors.As(err, &option) {
		x.option(option)
		return nil
	}
	if isUnix(x.network) {
		return x.unix()
	}
	first, advice := unprivileged()
	switch {
	case x.zone(t.local.Addr()):
	case !bindable(x.ctx, t.local.Addr()):
		x.notAvailable(t)
	case advice != "" && int(t.local.Port()) < first:
		x.denied(t)
	default:
		return x.inUse(t)
	}
	return nil
}

// errUnbound ends a Listen before the bind.
var errUnbound = errors.New("not bound")

// setOptions returns why Listen refuses c's options on an address. It sets them on a socket
// that it does not bind.
func setOptions(ctx context.Context, c reuse.Config, network, address string) error {
	lc, err := c.ListenConfig(net.ListenConfig{})
	control := lc.Control
	if err != nil || control == nil { // without one there is nothing to set
		return err
	}
	lc.Control = func(network, address string, rc syscall.RawConn) error {
		return cmp.Or(control(network, address, rc), errUnbound)
	}
	if strings.HasPrefix(network, "udp") || network == "unixgram" {
		_, err = lc.ListenPacket(ctx, network, address)
	} else {
		_, err = lc.Listen(ctx, network, address)
	}
	if errors.Is(err, errUnbound) {
		return nil
	}
	return err
}

func (x *explainer) explain() error {
	var option *reuse.OptionError
	kind := strings.TrimRight(x.network, "46")
	f := failureOf(x.err)
	switch {
	case errors.Is(x.err, reuse.ErrSelfDial):
		x.say("The local and the remote address of the connection are the same, "+x.Address+", so the socket was connected to itself.", otherPort)
	case errors.As(x.err, &option):
		x.option(option)
	case f == processFull || f == systemFull:
		x.full(f)
	case x.network == "":
		what := map[failure]string{inUse: "An address is in use", denied: "The system does not permit this bind or connection",
			notAvailable: "An address cannot be assigned", noFamily: "This kernel has no sockets of this family", invalid: "An address is invalid"}[f]
		x.say(cmp.Or(what, "What failed is unknown")+". The error contains no *net.OpError, so the address is unknown.",
			"Use inuse.Check with the network and the address, or wrap the error of package net with %w.")
	case isUnix(x.network) && !x.dial:
		return x.unix()
	case kind != "tcp" && kind != "udp":
		return fmt.Errorf("%w: only TCP, UDP and listening Unix sockets are explained: %w", errors.ErrUnsupported, x.err)
	case f == noFamily:
		x.say(fmt.Sprintf("This kernel has no sockets of the family that %s on %s needs.", x.Network, x.Address),
			`Use a network that ends in the other digit, as in "tcp4", or none, as in "tcp".`)
	case f == other:
		return x.unexplained()
	default:
		return x.explainAddress(f)
	}
	return nil
}

func (x *explainer) explainAddress(f failure) error {
	t, err := x.target()
	if x.dial && !x.connecting() && (f == inUse || f == denied || f == notAvailable) { // by bind
		x.Address = printable(t.local.String())
	}
	switch {
	case err != nil:
		return err
	case x.connecting() && (f == inUse || f == notAvailable && t.local.Port() != 0):
		x.tupleInUse(t) // EADDRINUSE on the BSDs and Windows
	case x.connecting() && f == notAvailable:
		x.exhausted(t)
	case f == inUse:
		return x.inUse(t)
	case f == denied:
		x.denied(t)
	case x.zone(t.local.Addr()) || x.zone(addrPort(x.remote).Addr()):
	case f == notAvailable:
		x.notAvailable(t)
	default:
		return x.unexplained()
	}
	return nil
}

func (x *explainer) unexplained() error {
	return fmt.Errorf("nothing is known about this error: %w", x.err)
}

// addressOf returns an address as text, "" for none.
func addressOf(a net.Addr) string {
	return strings.TrimPrefix(fmt.Sprint(a), "<nil>")
}

// connecting reports whether connect returned the error, or connectex.
func (x *explainer) connecting() bool {
	var sys *os.SyscallError
	return x.dial && errors.As(x.err, &sys) && strings.HasPrefix(sys.Syscall, "connect")
}

func (x *explainer) option(e *reuse.OptionError) {
	_, port, _ := net.SplitHostPort(x.local)
	advice := fmt.Sprintf("Leave %v at reuse.Default for this call", e.Option)
	switch {
	case errors.Is(e, reuse.ErrConflict):
		advice = "Ask for one of the two options: with both On the socket would share its address and be exclusive"
	case errors.Is(e, os.ErrInvalid) && e.Op == "check":
		advice = "A Setting is Default, On, Off or Prefer"
	case errors.Is(e, os.ErrInvalid): // UDP port 0 in a Control function
		advice = "Use Config.ListenPacket, which finds a free port and shares it then, or another port than 0"
	case failureOf(e) == denied:
		advice = "A filter of system calls, as of a container, may forbid setsockopt"
	case !errors.Is(e, errors.ErrUnsupported):
	case x.dial && e.Option == reuse.PortLB && reuse.Port.Supported() == nil:
		advice = "Use Port: reuse.On in place of PortLB to dial from a port that is shared"
	case strings.HasPrefix(x.network, "udp") && port == "0" && e.Option.Supported() == nil: // gVisor
		advice = "Use another port than 0"
	default:
		advice += ", or use reuse.Prefer to do without it"
	}
	x.say(printable(strings.TrimPrefix(e.Error(), "reuse: "))+".", advice+".")
}

func (x *explainer) full(f failure) {
	if f == systemFull {
		x.say("The system has as many files open as it can, of all processes.",
			"Raise the system's limit: fs.file-max on Linux, kern.maxfiles on the BSDs and macOS.")
		return
	}
	count := ""
	if open, limit := openFiles(); limit > 0 {
		count = fmt.Sprintf(": %d of %d now", open, limit)
	}
	x.say("This process has as many descriptors open as it may"+count+".",
		"Close connections and files that are not needed: a number that only grows is a leak.",
		"Raise the hard limit: LimitNOFILE= of systemd, ulimit -Hn of a shell. Go raises the soft limit to it.")
}

// target returns what the socket binds.
func (x *explainer) target() (target, error) {
	if !x.dial {
		return resolve(x.ctx, x.network, x.local)
	}
	t := target{proto: protoOf(x.network), local: addrPort(x.source)}
	if ip := t.local.Addr(); !ip.IsValid() || ip.IsUnspecified() {
		if ip = netip.IPv4Unspecified(); addrPort(x.remote).Addr().Is6() {
			ip, t.v6only = netip.IPv6Unspecified(), strings.HasSuffix(x.network, "6")
		}
		t.local = netip.AddrPortFrom(ip, t.local.Port())
	}
	return t, nil
}

// addrPort reads an address that may lack a host, as in ":8080".
func addrPort(text string) netip.AddrPort {
	p, err := netip.ParseAddrPort(text)
	if err != nil {
		p, _ = netip.ParseAddrPort("0.0.0.0" + text)
		return netip.AddrPortFrom(netip.Addr{}, p.Port())
	}
	return netip.AddrPortFrom(zoneByName(p.Addr().Unmap()), p.Port())
}

// inUse explains a bind that other sockets refuse, or would.
func (x *explainer) inUse(t target) error {
	if t.local.Port() == 0 {
		x.exhausted(t)
		return nil
	}
	holders, unseen, lookErr := t.holders(x.ctx)
	x.Holders = holders
	if lookErr != nil && x.err == nil {
		return lookErr
	}
	if x.dial && t.proto == semantics.TCP && x.exists() {
		return nil // which no option changes, though it might let the bind succeed
	}
	system, rulesErr := thisSystem()
	b := &bind{target: t, system: system, user: max(os.Geteuid(), 0), listens: !x.dial, refused: x.err != nil, asked: x.config}
	b.multicast = !x.dial && t.proto == semantics.UDP && addrPort(x.local).Addr().IsMulticast()
	switch {
	case lookErr != nil:
		x.suppose(b, lookErr, rulesErr)
	case len(holders) == 0 && x.err == nil:
		x.Free = true
		x.say("Nothing that is visible overlaps " + x.Address + "." + unseen)
	case len(holders) == 0:
		x.say("Nothing that is visible overlaps "+x.Address+" now: the socket that did is gone, or is not shown."+unseen, "Try again.")
	case rulesErr != nil:
		x.say(x.heldBy(holders[0])+"; "+rulesErr.Error()+".", x.release(b, holders[0], false)...)
	default:
		x.decide(b, unseen)
	}
	return nil
}

// suppose explains a refusal by a socket that cannot be seen. The rule and the advice are
// those for a socket on the same address.
func (x *explainer) suppose(b *bind, lookErr, rulesErr error) {
	reason := fmt.Sprintf("A socket that overlaps %s refuses it. Which one cannot be seen: %v.", x.Address, lookErr)
	var advice []string
	if rulesErr == nil {
		h := Holder{Network: networkOf(b.proto, b.local.Addr(), b.v6only), Local: b.local, State: bound, UID: -1}
		if b.proto == semantics.TCP {
			h.State = listen
		}
		list := b.classes([]Holder{h})
		found, verdicts := b.advise(list)
		_, why := b.culprit(list, verdicts)
		reason, advice = strings.TrimSpace(reason+" "+why.Rule.Text), found
	}
	tool := map[string]string{"linux": "ss -tulnp", "freebsd": "sockstat -l", "dragonfly": "sockstat -l", "netbsd": "sockstat -l",
		"openbsd": "fstat", "windows": "netstat -ano", "solaris": "netstat -anu", "illumos": "netstat -anu"}[runtime.GOOS]
	x.say(reason, append(advice, fmt.Sprintf("The command %q shows the processes, as a privileged user those of all users. Or use another port.", cmp.Or(tool, "lsof -nP -i")))...)
}

// decide finds the rule by which the holders refuse a bind, and what helps.
func (x *explainer) decide(b *bind, unseen string) {
	list := b.classes(x.Holders)
	advice, verdicts := b.advise(list)
	if !b.refused && verdicts[0].sure() { // that on the asked Config
		x.Free = true
		x.say(x.heldBy(list[0].Holder) + ", which admits " + literal(x.config) + ".")
		return
	}
	culprit, why := b.culprit(list, verdicts)
	c := cmp.Or(culprit, list[0])
	reason := x.heldBy(c.Holder) + "."
	if culprit != nil {
		reason += " " + why.Rule.Text
		if why.Evidence.Kind < semantics.Vendor {
			reason += " (" + why.Evidence.Kind.String() + ")"
		}
		if b.user != c.UID && c.UID >= 0 && os.Geteuid() >= 0 {
			reason += fmt.Sprintf(" Yours is uid %d.", b.user)
		}
	} else if b.refused {
		reason += " By " + b.system.Title() + "'s rules none of them refuses this bind: the socket that did is gone, or is not shown." + unseen
	}
	if devices := devicesOf(list); len(devices) > 0 && !x.dial {
		reason += fmt.Sprintf(" Sockets on a device refuse sockets on that device and on none (here on %s). Look at the holder on the device of your own socket, if it is bound to one.", strings.Join(devices, ", "))
	}
	hopeless := !slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.never })
	if hopeless {
		certainty := "works"
		if b.remembers() {
			certainty = "is sure to work"
		}
		advice = append([]string{"No Config " + certainty + " alongside " + c.subject() + "."}, b.restart(list)...)
	}
	if !slices.ContainsFunc(verdicts, verdict.sure) {
		advice = append(b.elsewhere(x.ctx, list), advice...) // what is sure comes first
	}
	x.say(reason, append(advice, x.release(b, c.Holder, hopeless || len(advice) == 0)...)...)
}

// release returns what helps apart from another socket, as h has the address.
func (x *explainer) release(b *bind, h Holder, hopeless bool) []string {
	end, use, otherPort := "Otherwise end the process, or ", "use that socket, or close it.", "use another port."
	if hopeless {
		end = "End the process, or "
	}
	if x.dial {
		otherPort = "dial from another local port, or from port 0."
		use = "close that socket, or " + otherPort
	}
	same := h.Local == b.local && !h.vague && h.Network == networkOf(b.proto, b.local.Addr(), b.v6only)
	serves := h.State == listen || h.State == bound && b.proto == semantics.UDP
	switch {
	case h.PID == os.Getpid():
		return []string{"This process has the address already: " + use}
	case h.orphan && !h.queued():
		return []string{"The kernel frees the port when it forgets the connection; TIME_WAIT lasts a minute on Linux."}
	case serves && same && h.PID != 0 && h.UID == b.user && !x.dial:
		return []string{fmt.Sprintf("If pid %d is the previous process of this server, a hand-over from it passes the socket on (package handover).", h.PID), end + otherPort}
	}
	return []string{end + otherPort}
}

// heldBy begins a Reason: which holder it is.
func (x *explainer) heldBy(h Holder) string {
	s := x.Address + " is held by " + h.String()
	if n := len(x.Holders) - 1; n == 1 {
		s += ", and 1 other socket"
	} else if n > 1 {
		s += fmt.Sprintf(", and %d other sockets", n)
	}
	return s
}

const otherPort = "Dial from another local port, or from port 0."

// tupleInUse explains that the connection exists already.
func (x *explainer) tupleInUse(t target) {
	var err error
	if t.local.Port() != 0 {
		x.Holders, _, err = t.holders(x.ctx)
	}
	if x.exists() {
		return
	}
	x.Holders = nil
	reason := fmt.Sprintf("A connection from %s to %s exists already, perhaps in TIME_WAIT.", printable(x.source), printable(x.remote))
	if err != nil {
		reason += fmt.Sprintf(" Its process cannot be seen: %v.", err)
	}
	x.say(reason, otherPort)
}

// exists explains that one of the holders is a connection to the same peer, if so.
func (x *explainer) exists() bool {
	remote := addrPort(x.remote)
	remote = netip.AddrPortFrom(remote.Addr().WithZone(""), remote.Port())
	list := slices.DeleteFunc(slices.Clone(x.Holders), func(h Holder) bool { return h.Remote != remote })
	if len(list) == 0 {
		return false
	}
	x.Holders = list
	h := list[0]
	x.say(fmt.Sprintf("A connection from %v to %v exists already, in %s: it is held by %s.", h.Local, remote, printable(h.State), h.process()), otherPort)
	return true
}

func (x *explainer) denied(t target) {
	first, advice := unprivileged()
	switch {
	case x.connecting():
		x.say("The system does not permit this process to connect to " + x.Address + ": a firewall, a security module or a filter of system calls may forbid it.")
	case t.local.Port() > 0 && int(t.local.Port()) < first && advice != "":
		x.say(fmt.Sprintf("Ports below %d are for processes with a privilege that this one, uid %d, lacks.", first, os.Geteuid()), advice)
	case runtime.GOOS == "windows":
		held := ""
		if list, _, err := t.holders(x.ctx); err == nil && len(list) > 0 {
			x.Holders = list
			held = x.heldBy(list[0]) + ". "
		}
		x.say(held+"Windows refuses a bind in this way where another socket set SO_EXCLUSIVEADDRUSE or belongs to another user, and in a range of ports that is reserved.",
			"No Config works. End the process that has the port, or use another port.")
	default:
		x.say("The system does not permit this process to bind "+x.Address+": a security module or a filter of system calls may forbid it.",
			"Look at what confines this process: SELinux, AppArmor, seccomp, a container's or a service's settings.")
	}
}

// zone explains a link-local address whose zone is missing or is no interface here.
func (x *explainer) zone(ip netip.Addr) bool {
	if _, err := net.InterfaceByName(ip.Zone()); !ip.IsLinkLocalUnicast() || ip.Is4() || err == nil {
		return false
	}
	var names []string
	all, _ := net.Interfaces()
	for _, i := range all {
		if list, _ := i.Addrs(); slices.Contains(addrs(list), ip.WithZone("")) {
			names = append([]string{i.Name}, names...)
		} else if x.dial && i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	advice := "No interface here has it: use another address."
	if len(names) > 0 {
		advice = fmt.Sprintf("Use a zone, as in %q.", ip.WithZone(names[0]))
	}
	reason := fmt.Sprintf("%v is a link-local address, which each interface has for itself: it needs the zone of an existing interface.", ip.WithZone(""))
	if ip.Zone() != "" {
		reason += fmt.Sprintf(" No interface is called %s.", printable(ip.Zone()))
	}
	x.say(reason, advice)
	return true
}

func (x *explainer) notAvailable(t target) {
	ip := t.local.Addr()
	addresses, err := net.InterfaceAddrs()
	if slices.Contains(addrs(addresses), ip.WithZone("")) {
		x.say(fmt.Sprintf("An interface has %v, but a socket cannot bind it now: the kernel may still check an IPv6 address for duplicates.", ip), "Try again in a second.")
		return
	}
	reason := fmt.Sprintf("No interface of this machine, or of this network namespace, has the address %v.", ip)
	if err != nil {
		reason = fmt.Sprintf("%v is no address of this machine that a socket can bind. Which ones it has cannot be seen: %v.", ip, err)
	}
	advice := []string{"Listen on the wildcard address, or on one that an interface has."}
	if x.dial {
		advice = []string{"Dial from no address in particular, or from one that an interface has."}
	} else if runtime.GOOS == "linux" {
		advice = append(advice, "To bind an address before an interface gets it, set IP_FREEBIND on the socket, or net.ipv4.ip_nonlocal_bind.")
	}
	x.say(reason, advice...)
}

func addrs(list []net.Addr) (all []netip.Addr) {
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}

// exhausted explains that the kernel found no port by itself.
func (x *explainer) exhausted(t target) {
	from, to := "on "+t.local.Addr().String(), netip.AddrPort{}
	if x.connecting() {
		to = addrPort(x.remote)
		from = "for connections to " + to.String()
	}
	var advice []string
	if c := x.config; x.dial && !x.connecting() && t.proto == semantics.TCP && c.DeferPort != reuse.On && reuse.DeferPort.Supported() == nil {
		c.DeferPort = reuse.On
		advice = append(advice, "With "+literal(c)+" on all of these connections a port need be free for one destination only.")
	}
	advice = append(advice, "Widen the range of ephemeral ports (on Linux net.ipv4.ip_local_port_range), or use more local addresses.")
	reason := "The kernel found no free port by itself"
	if first, last, taken, err := ephemeral(x.ctx, t, to); err != nil {
		reason += fmt.Sprintf(". How many are taken cannot be seen: %v.", err)
	} else {
		reason += fmt.Sprintf(": of the %d ephemeral ports, %d to %d, %d are taken %s.", last-first+1, first, last, taken, from)
		if x.connecting() && taken <= last-first {
			reason += " If that is few, no interface has an address from which to reach it."
		}
	}
	x.say(reason, advice...)
}

func thisSystem() (semantics.System, error) {
	if !likeLinux() {
		return semantics.System{}, errors.New("this kernel calls itself Linux and is not, and has other rules")
	}
	s, _, err := semantics.Running()
	return s, err
}

// A failure is the meaning of an errno for an address.
type failure uint8

const (
	other failure = iota
	inUse
	denied
	notAvailable
	noFamily
	invalid
	processFull // of descriptors
	systemFull
	notListening // nothing answers at a Unix socket's name
	otherType    // a Unix socket of another type has the name
)

type errnoFailure struct {
	errno   error
	failure failure
}

// failureOf returns the meaning of an errno in an error.
func failureOf(err error) failure {
	for _, f := range failures {
		if errors.Is(err, f.errno) {
			return f.failure
		}
	}
	return other
}
