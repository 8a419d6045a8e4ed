// Package inuse answers the question that "address already in use" leaves open: who
// holds the address, which rule of the kernel refuses the bind, and what works instead.
//
//	l, err := c.Listen(ctx, "tcp", ":8080")
//	if err != nil {
//		if r, e := inuse.Explain(ctx, c, err); e == nil {
//			log.Print(r)
//		}
//		return err
//	}
//
// [Explain] is for an error, [Check] for the time before a bind, and [Holders] lists the
// sockets alone. Nothing on the system is changed.
//
// # What can be seen
//
//	          sockets               processes               users  bound only   dual-stack
//	Linux     sock_diag, /proc/net  own; of all, for root   yes    from 6.8 on  yes
//	Windows   iphlpapi              yes                     -      -            -
//
// "Bound only" is a TCP socket that neither listens nor is connected. Where dual-stack is
// not reported, a :: counts as dual-stack. On other systems [Holders] and [Check] fail with
// [errors.ErrUnsupported]. [Explain] works there: it reports the rule, and advises as for a
// socket on the same address, with the command that shows it. What is said here of Linux
// was measured on 6.18; the code for Windows has run under Wine.
//
// No system shows the options of another process's socket. A [Report] concludes them from
// the kernel's rules, and Advice that depends on more says on what. It supposes that no
// option was changed after its socket's bind.
//
// # Linux
//
// The sockets are those of the caller's network namespace. One that is bound to a device
// conflicts with those on the same device and on none; no error says which device the
// caller's socket has. Other users' processes are visible to root or with CAP_SYS_PTRACE,
// in a /proc without hidepid.
//
// Where sock_diag is missing (gVisor, a unit without AF_NETLINK, a kernel without
// udp_diag) the sockets come from /proc/net, without devices, bound-only TCP sockets and
// dual-stack. gVisor's /proc/net/udp6 is always empty, so there a UDP address is reported
// as held or the error wraps ErrUnsupported. Its rules are not Linux's, and no Config is
// advised there.
//
// A Multipath TCP socket is seen as a TCP one. A connection that waits to be accepted, or
// that its process has closed, belongs to no process; its user is -1 if the kernel
// reports 0, as that may mean root or none. A socket belongs to the user that made it,
// who may not be its process's. A user outside this user namespace has no number here.
//
// Linux does not always ask all sockets of a port before it admits one more. So sockets
// on one port are no sign that they share, except TCP listeners of one user and one kind,
// and a Report says where Linux may admit what its rules refuse. A connection in TIME_WAIT
// blocks a bind, although the kernel keeps neither its user nor, visibly, its options.
package inuse
