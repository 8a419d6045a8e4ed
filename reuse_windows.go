package reuse

import "golang.org/x/sys/windows"

const (
	// SO_EXCLUSIVEADDRUSE is ~SO_REUSEADDR in Microsoft's winsock2.h.
	soExclusiveAddrUse = ^windows.SO_REUSEADDR

	// SO_REUSE_UNICASTPORT in ws2def.h: Windows 10, Server 2016.
	soReuseUnicastPort = 0x3007
)

// Windows.
func (o Option) sockOption() sockOption {
	switch o {
	case Addr:
		return sockOption{level: windows.SOL_SOCKET, name: windows.SO_REUSEADDR}
	case Port:
		return sockOption{reason: "there is no SO_REUSEPORT, and SO_REUSEADDR would let any user share the port"}
	case PortLB:
		return sockOption{}
	case Exclusive:
		// Package net sets SO_REUSEADDR for multicast addresses. While it is
		// set, SO_EXCLUSIVEADDRUSE fails with WSAEINVAL.
		return sockOption{level: windows.SOL_SOCKET, name: soExclusiveAddrUse, conflicts: set(Addr)}
	case DeferPort:
		// The effect on a UDP socket is unverified.
		return sockOption{level: windows.SOL_SOCKET, name: soReuseUnicastPort, tcpOnly: true, writeOnly: true}
	}
	return sockOption{}
}

// udpBindsFirst: SO_REUSEADDR must be set before the bind.
const udpBindsFirst = false

// errTupleInUse is the error of ConnectEx if the four-tuple exists (Microsoft, "ConnectEx
// function").
const errTupleInUse = windows.WSAEADDRINUSE
