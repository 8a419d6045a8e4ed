package reuse

import "golang.org/x/sys/windows"

const (
	// SO_EXCLUSIVEADDRUSE is ~SO_REUSEADDR in Microsoft's winsock2.h.
	soExclusiveAddrUse = ^windows.SO_REUSEADDR

	// SO_REUSE_UNICASTPORT in ws2def.h: Windows 10, Server 2016.
	soReuseUnicastPort = 0x3007
)

// Windows.
func table(o Option) entry {
	switch o {
	case Addr:
		return entry{level: windows.SOL_SOCKET, name: windows.SO_REUSEADDR}
	case Port:
		return entry{why: "there is no SO_REUSEPORT, and SO_REUSEADDR would let a stranger take the port"}
	case PortLB:
		return entry{}
	case Exclusive:
		// Package net sets SO_REUSEADDR for multicast addresses. While it is
		// set, SO_EXCLUSIVEADDRUSE fails with WSAEINVAL.
		return entry{level: windows.SOL_SOCKET, name: soExclusiveAddrUse, clears: set(Addr)}
	case DeferPort:
		// What a UDP socket answers is not known.
		return entry{level: windows.SOL_SOCKET, name: soReuseUnicastPort, tcpOnly: true, unreadable: true}
	}
	return entry{}
}

// udpBindsFirst: SO_REUSEADDR must be set before the bind.
const udpBindsFirst = false

// errTupleInUse is what ConnectEx says when the four-tuple exists already
// (Microsoft, "ConnectEx function").
const errTupleInUse = windows.WSAEADDRINUSE
