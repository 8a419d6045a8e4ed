package reuse

import "golang.org/x/sys/unix"

// Linux and Android. The numbers differ between architectures (SO_REUSEPORT is
// 0x200 on MIPS and 15 elsewhere), so they come from x/sys.
func table(o Option) entry {
	switch o {
	case Addr:
		return entry{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR}
	case Port, PortLB:
		// From 3.9; ENOPROTOOPT before. One option for both: the kernel hashes
		// over the sockets that share. Multipath TCP sockets have it, too.
		return entry{level: unix.SOL_SOCKET, name: unix.SO_REUSEPORT}
	case Exclusive:
		// inet_csk_bind_conflict and udp_lib_lport_inuse refuse every overlap
		// unless both sockets have the same sharing option. SO_REUSEADDR admits
		// nobody to a listening TCP socket, and a restart needs it.
		return entry{clears: set(Addr, Port), keepsAddr: true}
	case DeferPort:
		// From 4.2, at level IPPROTO_IP for IPv6 sockets, too. MPTCP sockets
		// lack it before 6.12 (EOPNOTSUPP on 6.1, measured).
		return entry{level: unix.IPPROTO_IP, name: unix.IP_BIND_ADDRESS_NO_PORT}
	}
	return entry{}
}

// udpBindsFirst: see bindsFirst.
const udpBindsFirst = true

// errTupleInUse is what connect says when the four-tuple exists already
// (measured, 6.18).
const errTupleInUse = unix.EADDRNOTAVAIL
