// Package inuse answers the question that "address already in use" leaves open: who
// holds the address, by which rule of the kernel it is in the way, and which
// [reuse.Config] would be admitted.
//
//	l, err := c.Listen(ctx, "tcp", ":8080")
//	if err != nil {
//		if r, e := inuse.Explain(ctx, c, err); e == nil {
//			log.Print(r)
//		}
//		return err
//	}
//
// It is for the moment after a failure, or for a person who asks; a listener opens
// without it. It is a module of its own, so that what it needs is not needed by
// package reuse.
//
// Nothing on the system is changed and no address is bound to find something out.
//
// What Advice names is a Config, the one thing that this library can change. It also
// says when another way is the better one: to close the socket that this process has
// itself, to wait, or, if an older process of the same user has the address and
// shares it, to take it over with package group.
//
// # What can be seen
//
//	          sockets      processes               users          bound only  dual-stack
//	Linux     sock_diag    own; of all, for root   yes            from 6.8 on yes
//	Windows   iphlpapi     yes                     -              -           -
//	macOS     lsof         own; of all, for root   as processes   -           -
//	FreeBSD   lsof         own; of all, for root   as processes   -           -
//	NetBSD    netstat      -                       -              -           -
//	OpenBSD   netstat      -                       -              -           -
//
// "Bound only" is a TCP socket that neither listens nor is connected. Where
// dual-stack is not told, a :: counts as dual-stack. On all other systems [Holders]
// fails with [errors.ErrUnsupported]; [Explain] works, and says what it cannot see.
// What stands here of Linux has been measured on 6.18; the code for Windows has run
// under Wine; on the others nothing has been run.
//
// No system shows the options of another process's socket. What a [Report] says of
// them is a conclusion from the kernel's rules, and Advice that depends on more says
// on what. It supposes that no socket's options were changed after its bind.
//
// # Linux
//
// The sockets are those of the caller's network namespace. A socket of the same
// address in another one is not in the way, and one that is bound to a device counts
// beside those of the same device and of none. To see other users' processes takes root
// or CAP_SYS_PTRACE, and a /proc without hidepid.
//
// A Multipath TCP socket is seen as a TCP one. A connection that waits to be accepted,
// or that its process has closed, belongs to no process; its user is told as -1 if
// the kernel says 0, as that may mean root or nobody. A socket belongs to the user
// that made it, who need not be the process's.
//
// Linux does not always ask all sockets of a port before it lets one more in. So
// sockets on one port are no sign that they share, except TCP listeners of one user
// and one kind, and a Report says where Linux may admit what its rules refuse.
//
// Of a connection in TIME_WAIT the kernel keeps neither the user nor, visibly, the
// options; it blocks a bind all the same.
package inuse
