// Package reuse sets the socket options that decide which sockets may share an
// address: SO_REUSEADDR, SO_REUSEPORT, SO_REUSEPORT_LB, SO_EXCLUSIVEADDRUSE,
// SO_EXCLBIND, IP_BIND_ADDRESS_NO_PORT and SO_REUSE_UNICASTPORT. Their meaning
// differs between systems. A field of a [Config] has one meaning on all of them.
//
//	l, err := reuse.Config{PortLB: reuse.On}.Listen(ctx, "tcp4", ":8080")
//
// The listeners, packet connections and connections are those of package net. To add
// the options to a [net.ListenConfig] or [net.Dialer] of your own, use
// [Config.ListenConfig] and [Config.Dialer]. A Control function sets the options
// before the bind. For UDP with port 0 on Linux [Config.ListenPacket] sets them after
// the bind.
//
// An option that is On is in force, or the call fails with an [OptionError] that
// names the option and the system. No option replaces another. [Prefer] continues
// without an option where the system lacks it.
//
// Package [example.com/reuse/handover] restarts a server without losing a connection: the
// next process takes over the sockets of the running one. Package
// [example.com/reuse/inuse] reports which process holds an address that is in use, and
// what works instead.
//
// # When not to use it
//
// A restart without "address already in use" needs no option on a Unix system: package
// net sets SO_REUSEADDR on its listeners already. On Windows connections in TIME_WAIT do
// not prevent a bind.
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
// A number limits the field to some sockets:
//
//  1. not for a dual-stack address, as in Listen(ctx, "tcp", ":80")
//  2. for IPv4
//  3. for a specific address, not for a wildcard address
//  4. from Solaris 11.4 on
//  5. for TCP except on 0.0.0.0, an IPv6-only :: and a link-local address, for UDP on
//     a dual-stack ::, and for any listener on a port that other users may not bind
//
// A "-" means that On is an error that [errors.Is] finds as [errors.ErrUnsupported].
// [Option.Supported] probes the running system.
//
// docs/semantics.md has the result of every pair of binds on each system and who gets
// the traffic, with the evidence: measured, source, or vendor document. The page is
// generated from the rules in internal/semantics. docs/claims.md checks widespread
// statements about these options.
//
// # Linux, Android
//
// Sockets that share with SO_REUSEPORT must have one effective user. SO_REUSEPORT groups
// are per address. Another user can bind alongside a socket that does not share, in
// several binds, except on a dual-stack ::, so Exclusive is unsupported for some addresses.
//
// # gVisor
//
// GOOS is linux, but the rules differ: SO_REUSEPORT checks no user, and options set after
// the bind have no effect. ListenPacket with port 0 and Addr, Port or PortLB On is
// unsupported: use a port.
//
// # FreeBSD
//
// The 257th socket of a SO_REUSEPORT_LB group binds and gets nothing. On FreeBSD 14.0
// a TCP socket that is bound and does not listen yet refuses its share of connections.
// No address is exclusive, because a wildcard group takes its traffic.
//
// # OpenBSD, NetBSD, macOS, iOS
//
// With SO_REUSEPORT one socket gets every new connection: the one bound last, but on
// a wildcard address of macOS and iOS the one bound first.
//
// # Windows
//
// Package net sets nothing on listeners. Without Exclusive another socket of the same user
// can take the traffic of a specific address from a wildcard listener without any option.
//
// # Solaris, illumos
//
// With Exclusive a restart fails while connections of the previous listener are
// established. Without it a UDP socket of any user can share the port.
package reuse

//go:generate go run ./test/pages
