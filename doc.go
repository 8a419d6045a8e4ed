// Package reuse sets the socket options that decide who may share an address:
// SO_REUSEADDR, SO_REUSEPORT, SO_REUSEPORT_LB, SO_EXCLUSIVEADDRUSE, SO_EXCLBIND,
// IP_BIND_ADDRESS_NO_PORT and SO_REUSE_UNICASTPORT. They mean different things on
// every system; here one field of a [Config] has one meaning on all of them.
//
//	l, err := reuse.Config{PortLB: reuse.On}.Listen(ctx, "tcp4", ":8080")
//
// The listeners, packet connections and connections are those of package net. To add
// the options to a [net.ListenConfig] or [net.Dialer] of your own, use
// [Config.ListenConfig] and [Config.Dialer]. Options are set before the bind, by
// a Control function; after it only for UDP with port 0 on Linux, see
// [Config.ListenPacket].
//
// An option that is On is in force, or the call fails with an [OptionError] that
// names the option and the system. Nothing is replaced by something similar; to
// do without an option where it is missing, ask for [Prefer].
//
// Package [example.com/reuse/handover] restarts a server without losing a connection: the
// next process takes the sockets of the running one. Package [example.com/reuse/inuse]
// reports who holds an address that is in use, and what works instead.
//
// # When not to use it
//
// To restart a server without "address already in use" on a Unix system: package
// net sets SO_REUSEADDR on its listeners already. On Windows a bind is not blocked
// by connections in TIME_WAIT.
//
// # What each system has
//
//	                    Addr  Port  PortLB  Exclusive  DeferPort
//	Linux, Android      yes   yes   yes     (5)        yes
//	FreeBSD             yes   yes   (1)     -          -
//	DragonFly           yes   yes   (2)     -          -
//	OpenBSD, NetBSD     yes   yes   -       (3)        -
//	macOS, iOS          yes   yes   -       (3)        -
//	Solaris             yes   yes   (4)     yes        -
//	illumos             yes   -     -       yes        -
//	AIX                 yes   yes   -       -          -
//	Windows             yes   -     -       yes        yes
//	js, wasip1, Plan 9  -     -     -       -          -
//
// Where a number stands, it is not for every socket:
//
//  1. not for a dual-stack address, as in Listen(ctx, "tcp", ":80")
//  2. for IPv4
//  3. for a specific address, not for a wildcard one
//  4. from Solaris 11.4 on
//  5. not for TCP on 0.0.0.0 and an IPv6-only ::, nor for UDP except on a dual-stack
//     ::; for any listener on a port that other users may not bind
//
// Where a "-" stands, On is an error that [errors.Is] finds as
// [errors.ErrUnsupported]. [Option.Supported] asks the running system.
//
// Which option each field is on which system, and what it does there, stands with the
// fields of [Config]; below is what two sockets on one port may do. Each says how it is
// known: measured, on a running kernel of that version; read in the kernel's source;
// or the vendor's document. Every pair of binds, and all else that is known of each
// system, is in docs/semantics.md, which is made from the rules in internal/semantics.
// What is widely said of these options is weighed in docs/claims.md.
//
// # Linux, Android
//
// Two binds conflict if their addresses overlap, wildcard or not, unless both
// sockets have SO_REUSEADDR and the first is not listening, or both have
// SO_REUSEPORT and belong to one effective user (measured on 5.10, 6.1, 6.12 and
// 6.18). A dual-stack :: overlaps every IPv4 address. What an option was when the
// socket was bound is not all that counts: SO_REUSEPORT set on a listening socket
// lets others in, and clearing it again does not shut them out.
//
// That is the rule for two sockets. A third gets round it: the kernel does not
// compare a socket that has SO_REUSEPORT with all that are there, but takes the one
// that its user bound last (TCP), or the first it finds (UDP), for the others. So any
// user can bind beside a socket that does not share, in two or more steps, of which
// the first is on an address that does not overlap: the wildcard of the other family,
// or another IPv4 address. A dual-stack :: leaves no such address. Where that takes
// traffic from a socket, Exclusive is unsupported (measured, 5.10 to 6.18; for UDP on
// 0.0.0.0, on IPv6 and connected, 6.18).
//
// A TCP listener of package net is a Multipath TCP listener where the kernel has
// that. The options work on it alike. If anything fails, package net tries once
// more with plain TCP, so a Control function runs twice. If both fail, the error of
// [Config.Listen] has both.
//
// SO_REUSEPORT groups are per address: sockets on 127.0.0.1 take all of its
// connections from sharing ones on 0.0.0.0, and those take IPv4 from a dual-stack
// :: (measured, 6.18).
//
// # gVisor
//
// GOOS is linux, and the network stack is another one. Two binds that overlap succeed
// if both sockets have SO_REUSEPORT, of any user, or both SO_REUSEADDR and, for TCP,
// different addresses, even if both listen. Of three sockets each pair counts. Options
// count as they are at the bind. Every unknown option succeeds without effect, so
// what is set is read back (measured, runsc of May 2026).
//
// # FreeBSD
//
// A wildcard and a specific address conflict unless the second has SO_REUSEADDR,
// SO_REUSEPORT or SO_REUSEPORT_LB; the same address conflicts unless both have
// SO_REUSEPORT or both SO_REUSEPORT_LB. Another user's bind beside a socket is
// refused, except that on 14.0 it may join a wildcard SO_REUSEPORT_LB group of either
// family (measured on 14.0). A wildcard group takes the connections of a plain
// listener on a specific address, so no address is exclusive.
//
// In a SO_REUSEPORT_LB group the 257th socket binds and gets nothing, without an
// error (source). A TCP socket that is bound but does not listen yet is chosen too,
// and refuses, with either option. So a listener that starts on the port of others
// refuses connections while its process waits for a processor between bind and listen:
// 4 of 2,512 with SO_REUSEPORT and 126 of 3,817 with SO_REUSEPORT_LB in one test (14.0).
//
// # OpenBSD
//
// The rules for one family are FreeBSD's without SO_REUSEPORT_LB. Another user's bind
// to an overlapping address is refused. With SO_REUSEPORT the socket bound last gets
// every new connection (source: 7.8).
//
// # NetBSD
//
// The rules for one user and one family are FreeBSD's without SO_REUSEPORT_LB. On
// IPv4 another user's bind is refused, except for a wildcard beside a wildcard with
// SO_REUSEPORT on both; on IPv6, ::ffff:a.b.c.d included, no user is checked. With
// SO_REUSEPORT the socket bound last gets every new connection, also while it does not
// listen yet: it drops the first attempt, and NetBSD's clients repeat it after 6 s.
// A UDP socket on IPv4 gets the datagrams if it was bound or sent last (measured on
// 7.99, 9.1 and 10.99).
//
// # DragonFly
//
// The rules for one family are FreeBSD's without SO_REUSEPORT_LB. Another user's bind
// to an overlapping address is refused. SO_REUSEPORT spreads connections, on IPv4 only
// (source: 5.9).
//
// # macOS, iOS
//
// The rules for one user and one family are FreeBSD's without SO_REUSEPORT_LB. Another
// user's bind is refused, except for a wildcard beside a wildcard with SO_REUSEPORT on
// both, or where the first has SO_REUSESHAREUID. With SO_REUSEPORT a newcomer on
// a specific address gets every new connection; on a wildcard address the oldest
// socket keeps them (source: xnu-11417).
//
// # Windows
//
// Package net sets nothing on listeners. Another socket of the same user may take the
// traffic of a specific address from a listener on a wildcard one without any option.
// With SO_REUSEADDR on both, any user's may take the traffic of any address. So
// a service sets Exclusive. Where that is in the way of another socket, the other's
// bind fails with WSAEACCES or WSAEADDRINUSE (Microsoft, "Using SO_REUSEADDR and
// SO_EXCLUSIVEADDRUSE"). Whether an exclusive port can be bound again while
// connections of the old listener are open is disputed: Microsoft says no, two
// measurements say yes.
//
// # Solaris, illumos
//
// A TCP socket with SO_REUSEADDR may bind beside a wildcard or specific one, but
// not the same address while another is bound to it; a UDP socket may always. Only
// the newcomer's option counts, and no user is checked. SO_EXCLBIND on either side
// forbids all of that, also while connections are open (source: illumos tcp_bindi,
// udp_do_bind; Solaris inferred from it).
//
// # AIX
//
// SO_REUSEPORT gives every connection to the first listener unless the administrator
// has set soreuseport_lb (IBM's support page).
//
// # js, wasip1, Plan 9
//
// There are no socket options: what is On fails.
package reuse

//go:generate go run ./internal/docs
