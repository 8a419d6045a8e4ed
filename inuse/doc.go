// Package inuse reports what "address already in use" leaves open: which process holds the
// address, which rule of the kernel refuses the bind, and what works instead.
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
// sockets alone. The package changes nothing on the system.
//
// # What can be seen
//
//	          sockets               processes               users  bound only   dual-stack
//	Linux     sock_diag, /proc/net  own; of all, for root   yes    from 6.8 on  yes
//	Windows   iphlpapi              yes                     -      -            -
//
// "Bound only" is a TCP socket that neither listens nor is connected. Where dual-stack is
// not reported, a :: counts as dual-stack. On other systems [Holders] and [Check] fail with
// [errors.ErrUnsupported]. [Explain] then reports the rule, the advice for a socket on the
// same address, and the command that shows it. The statements about Linux were measured on
// 6.18. The code for Windows has run under Wine.
//
// No system shows the options of another process's socket. A [Report] concludes them from
// the kernel's rules, and names the options on which an Advice depends. It assumes that no
// option was changed after the bind of its socket.
//
// # Linux
//
// The sockets are those of the caller's network namespace. A socket that is bound to a
// device conflicts with sockets on the same device and on none. No error names the device of
// the caller's socket. Other users' processes are visible to root or with CAP_SYS_PTRACE,
// if /proc is mounted without hidepid.
//
// Without sock_diag (gVisor, a unit without AF_NETLINK, a kernel without udp_diag) the
// sockets come from /proc/net, without devices, bound-only TCP sockets and dual-stack.
// gVisor's /proc/net/udp6 is always empty, so there a UDP address is reported as held or
// the error wraps ErrUnsupported. gVisor has other rules than Linux, so no Config is advised.
//
// A Multipath TCP socket counts as a TCP socket. A connection that waits to be accepted, or
// that its process has closed, belongs to no process. Its user is -1 if the kernel reports
// 0, which can mean root or none. A socket belongs to the user that made it, which can
// differ from its process's user. A user outside this user namespace has no number here.
//
// Linux does not always compare a socket with all sockets of its port. So sockets on one
// port do not show that they share, except TCP listeners of one user and one kind. A Report
// names a Config that Linux may admit against its rules. A connection in TIME_WAIT can
// refuse a bind, although the kernel keeps neither its user nor, visibly, its options.
package inuse
