package reuse

import "golang.org/x/sys/unix"

// Linux and Android. The numbers differ between architectures (SO_REUSEPORT is
// 0x200 on MIPS and 15 elsewhere), so they come from x/sys.
func (o Option) sockOption() sockOption {
	switch o {
	case Addr:
		return sockOption{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR}
	case Port, PortLB:
		// From 3.9, ENOPROTOOPT before. One option for both, because the kernel
		// spreads over the sockets that share. Multipath TCP sockets also have it.
		return sockOption{level: unix.SOL_SOCKET, name: unix.SO_REUSEPORT}
	case Exclusive:
		// inet_csk_bind_conflict and udp_lib_lport_inuse refuse every overlap
		// unless both sockets have the same sharing option. SO_REUSEADDR admits no
		// second TCP listener, and a restart needs it.
		return sockOption{conflicts: set(Addr, Port), keepsAddr: true}
	case DeferPort:
		// From 4.2, also at level IPPROTO_IP for IPv6 sockets. MPTCP sockets
		// lack it before 6.12 (EOPNOTSUPP on 6.1, measured).
		return sockOption{level: unix.IPPROTO_IP, name: unix.IP_BIND_ADDRESS_NO_PORT}
	}
	return sockOption{}
}

// udpBindsFirst: see anyUDPPort.
const udpBindsFirst = true

// errTupleInUse is the errno of connect if the four-tuple exists (6.18).
const errTupleInUse = unix.EADDRNOTAVAIL
