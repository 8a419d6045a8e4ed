package group

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A program is a classic BPF program on a group of sharing sockets. It returns the
// index of the socket that gets a new connection; an index that is out of range
// leaves the choice to the kernel's hash. Sockets are numbered as they began to
// listen, and when one leaves, the last takes its number.
type program []unix.SockFilter

const (
	networkHeader = 0xfff00000         // SKF_NET_OFF
	random        = 0xfffff000 + 56    // SKF_AD_OFF + SKF_AD_RANDOM
	maxProgram    = 4096               // BPF_MAXINSNS
	nobody        = uint32(0xffffffff) // an index that is out of range
	invisible     = math.MaxInt32      // an interface that does not exist
)

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

// unless skips n statements unless the accumulator has a value.
func unless(value uint32, n uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: n}
}

func ret(index uint32) unix.SockFilter { return stmt(unix.BPF_RET|unix.BPF_K, index) }

// byHash is the program that chooses nobody.
func byHash() program { return program{ret(nobody)} }

// choose spreads connections over some indexes at random.
func choose(indexes []uint32) (program, error) {
	n := uint32(len(indexes))
	if n == 0 {
		return byHash(), nil
	}
	indexes = slices.Sorted(slices.Values(indexes))
	p := program{
		stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, random),
		stmt(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, n),
	}
	switch {
	case n == 1:
		return program{ret(indexes[0])}, nil
	case indexes[n-1]-indexes[0] == n-1: // without a gap
		return append(p,
			stmt(unix.BPF_ALU|unix.BPF_ADD|unix.BPF_K, indexes[0]),
			stmt(unix.BPF_RET|unix.BPF_A, 0)), nil
	case 2*n > maxProgram-16: // and room for except
		return nil, fmt.Errorf("group: %w: %d members are too many to steer to", errors.ErrUnsupported, n)
	}
	for i, index := range indexes {
		p = append(p, unless(uint32(i), 1), ret(index))
	}
	return append(p, ret(indexes[0])), nil
}

// except sends the connections from one port to an index, and the others where p
// would. The data that a program is given begins behind the transport header, so
// ports are found from the network header: the protocols' extension headers, which
// loopback does not have, are not looked for.
func (p program) except(port uint16, index uint32) program {
	return append(program{
		stmt(unix.BPF_LD|unix.BPF_B|unix.BPF_ABS, networkHeader),
		stmt(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0xf0),
		unless(0x60, 2), // the version
		stmt(unix.BPF_LD|unix.BPF_H|unix.BPF_ABS, networkHeader+40),
		stmt(unix.BPF_JMP|unix.BPF_JA, 2),
		stmt(unix.BPF_LDX|unix.BPF_B|unix.BPF_MSH, networkHeader), // IPv4: the header's length
		stmt(unix.BPF_LD|unix.BPF_H|unix.BPF_IND, networkHeader),
		unless(uint32(port), 1),
		ret(index),
	}, p...)
}

// attach gives the group that m is in a program, in place of the one it has.
func attach(m *member, p program) error {
	return onSocket(m.l, func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}))
	})
}

// detach takes the program from the group that m is in, if it has one.
func detach(m *member) error {
	return onSocket(m.l, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return os.NewSyscallError("setsockopt", err)
	})
}

const canBlind = true

// blind hides a listener from new connections; its queue stays. The kernel takes
// a closing socket out of its group before it takes it out of the list in which
// listeners are looked up, and a SYN in between would reach it. Bound to an
// interface that does not exist, it is not found. No privilege is needed (from
// 5.7); before, the listener stays in sight.
func blind(l *net.TCPListener) error {
	err := onSocket(l, func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, invisible))
	})
	if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// settleQueues waits until what the kernel was about to queue, having found its
// socket before that was hidden, is queued. It does that in an RCU read section, and
// this membarrier waits until those that have begun are over: 5 to 30 ms (source, and
// measured, 6.18). Where it is refused, the waits for quiet queues have to do.
func settleQueues() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
}

// queued tells how many connections a listener has not accepted yet.
func queued(l *net.TCPListener) (n int, err error) {
	err = onSocket(l, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		if err == nil {
			n = int(info.Unacked) // for a listener
		}
		return os.NewSyscallError("getsockopt", err)
	})
	return n, err
}

// deferred tells for how many seconds the kernel may keep a handshake that waits
// for data.
func deferred(l *net.TCPListener) (seconds int, err error) {
	err = onSocket(l, func(fd int) error {
		seconds, err = unix.GetsockoptInt(fd, unix.SOL_TCP, unix.TCP_DEFER_ACCEPT)
		return os.NewSyscallError("getsockopt", err)
	})
	return seconds, err
}

func cookieOf(l *net.TCPListener) (cookie uint64, err error) {
	err = onSocket(l, func(fd int) error {
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return os.NewSyscallError("getsockopt", err)
	})
	return cookie, err
}
