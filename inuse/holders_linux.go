package inuse

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/sockdiag"
)

// stateNames are the states of net/tcp_states.h, by number.
var stateNames = [...]string{1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: finWait2,
	6: timeWait, 7: bound, 8: closeWait, 9: "LAST_ACK", 10: listen, 11: "CLOSING"}

// holding is the set of states that hold a port. SYN_RECV is not one: a handshake that a
// listener answers has no port of its own and ends with the listener. 13 is
// TCP_BOUND_INACTIVE, which kernels before 6.8 ignore.
const holding = (1<<12-2)&^(1<<unix.BPF_TCP_SYN_RECV) | 1<<13

// holders returns the sockets that overlap the target, and a sentence about what this
// system does not show.
func (t target) holders(ctx context.Context) (list []Holder, unseen string, err error) {
	sockets, told, err := t.sockets(ctx)
	if err != nil {
		return nil, "", err
	}
	var inodes []uint32
	outside := unmappedUser()
	for _, s := range sockets {
		h := t.holder(s, told)
		if h.UID == outside && outside >= 0 {
			h.UID, h.outside = -1, true
		}
		// An IPv6 connection of a dual-stack socket conflicts with 0.0.0.0, and with no
		// other IPv4 address (Linux 6.18).
		dual := t.local.Addr() == netip.IPv4Unspecified() && h.Local.Addr().Is6() && h.Remote.IsValid()
		zone := t.local.Addr().Zone() // a socket with a zone is bound to that device
		if (dual || t.overlaps(h.Local.Addr(), s.V6Only)) && (zone == "" || h.Device == "" || zone == h.Device) {
			list, inodes = append(list, h), append(inodes, s.Inode)
		}
	}
	if err := owners(ctx, list, inodes); err != nil {
		return nil, "", err
	}
	order(list)
	_, release, _ := semantics.Running() // "" if that is unknown
	if t.proto == semantics.TCP && (!told || olderThan68(release)) {
		unseen = " Linux lists TCP sockets that are bound and do not listen from 6.8 on, with sock_diag."
	}
	return list, unseen, nil
}

// holder describes a socket; for told see sockets.
func (t target) holder(s sockdiag.Socket, told bool) Holder {
	state := ""
	if n := bits.TrailingZeros32(s.State); n < len(stateNames) {
		state = stateNames[n]
	}
	h := Holder{Local: s.Local, Remote: s.Remote, State: state, UID: int(s.UID), orphan: s.Inode == 0}
	if t.proto == semantics.UDP && h.State != bound {
		h.State = connected
	}
	ip := h.Local.Addr()
	h.Network = networkOf(t.proto, ip, s.V6Only)
	// The kernel never reports it for a connection, and /proc/net for no socket.
	h.vague = ip.Is6() && (h.Remote.IsValid() || !told && ip.IsUnspecified())
	switch {
	case s.Interface == 0:
	case ip.Is6() && ip.IsLinkLocalUnicast():
		h.Local = netip.AddrPortFrom(ip.WithZone(interfaceName(int(s.Interface))), h.Local.Port())
	default:
		h.Device = interfaceName(int(s.Interface))
	}
	if h.orphan && h.UID == 0 { // older kernels report 0 for a socket without a process
		h.UID = -1
	}
	return h
}

// sockets returns the sockets of the target's port, or of all ports if it is 0, of the
// families that can overlap the target. They come from sock_diag, or else from /proc/net:
// gVisor has no sock_diag, a unit may be without AF_NETLINK, a kernel without udp_diag.
// told reports whether V6Only and Interface are known.
func (t target) sockets(ctx context.Context) (list []sockdiag.Socket, told bool, err error) {
	families := []uint8{unix.AF_INET, unix.AF_INET6}
	if t.v6only || t.local.Addr().Is6() && !t.local.Addr().IsUnspecified() {
		families = families[1:]
	}
	protocol := uint8(unix.IPPROTO_TCP)
	if t.proto == semantics.UDP {
		protocol = unix.IPPROTO_UDP
	}
	for _, family := range families {
		var sockets []sockdiag.Socket
		if sockets, err = sockdiag.Sockets(protocol, family, t.local.Port(), holding); err != nil {
			break
		}
		list = append(list, sockets...)
	}
	if told = err == nil; !told && !starved(err) {
		var e error
		if list, e = t.procNet(families); e != nil {
			e = fmt.Errorf("%w: %w; %w", errors.ErrUnsupported, err, e)
		}
		err = e
	}
	return list, told, cmp.Or(ctx.Err(), err)
}

// procNet is sockets from /proc/net/tcp and its like.
func (t target) procNet(families []uint8) (list []sockdiag.Socket, err error) {
	for _, family := range families {
		name := "/proc/net/" + t.proto.String()
		if family == unix.AF_INET6 {
			name += "6"
			if t.proto == semantics.UDP && len(list) == 0 && !listsUDP6() {
				return nil, errors.New(name + " lists no sockets")
			}
		}
		text, err := os.ReadFile(name)
		if family == unix.AF_INET6 && errors.Is(err, os.ErrNotExist) && !dualStack() {
			continue // the kernel has no IPv6
		} else if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			s, ok := parseLine(line)
			if ok && s.State&holding != 0 && (t.local.Port() == 0 || s.Local.Port() == t.local.Port()) {
				list = append(list, s)
			}
		}
	}
	return list, nil
}

// listsUDP6 reports whether /proc/net/udp6 has the sockets there are: that of gVisor is
// always empty. It binds a socket to an ephemeral port of ::1 to see.
func listsUDP6() bool {
	p, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		return true // there can be no others
	}
	defer p.Close()
	text, err := os.ReadFile("/proc/net/udp6")
	return err == nil && strings.Contains(string(text), fmt.Sprintf(":%04X ", p.LocalAddr().(*net.UDPAddr).Port))
}

// parseLine reads a line of /proc/net/tcp, "sl local remote st queues tr retrnsmt uid
// timeout inode", whose addresses are words in the machine's byte order.
func parseLine(line string) (s sockdiag.Socket, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return s, false
	}
	address := func(text string) netip.AddrPort {
		host, port, _ := strings.Cut(text, ":")
		b, err := hex.DecodeString(host)
		n, e := strconv.ParseUint(port, 16, 16)
		if err != nil || e != nil || len(b)%4 != 0 {
			return netip.AddrPort{}
		}
		for i := 0; i < len(b); i += 4 {
			binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
		}
		ip, _ := netip.AddrFromSlice(b)
		return netip.AddrPortFrom(ip.Unmap(), uint16(n))
	}
	state, err := strconv.ParseUint(f[3], 16, 8)
	if int(state) >= len(stateNames) {
		return s, false
	}
	uid, err1 := strconv.ParseUint(f[7], 10, 32)
	inode, err2 := strconv.ParseUint(f[9], 10, 32)
	s = sockdiag.Socket{State: 1 << state, Local: address(f[1]), UID: uint32(uid), Inode: uint32(inode)}
	if remote := address(f[2]); remote.Port() != 0 {
		s.Remote = remote
	}
	return s, cmp.Or(err, err1, err2) == nil && s.Local.IsValid()
}

// owners fills in PID and Command of the holders with these inodes, as far as this user
// may see: /proc/PID/fd has a link "socket:[INODE]" for each socket of a process. The
// search begins with this process, then come those of the sockets' users. Of each it reads
// the first descriptors first, where a server's listener is likely. Alongside 20,000 other
// sockets a listener takes 19 to 25 ms, and reading all of /proc 300 to 590 (Linux 6.18, 2
// busy processors; BenchmarkHolders).
func owners(ctx context.Context, holders []Holder, inodes []uint32) error {
	wanted := map[string][]*Holder{}
	users := map[int]bool{}
	for i, inode := range inodes {
		if inode != 0 {
			link := fmt.Sprintf("socket:[%d]", inode)
			wanted[link] = append(wanted[link], &holders[i])
			users[holders[i].UID] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	var err error
	// search reads count descriptors of each process, or all if count is -1. It returns the
	// processes that have more.
	search := func(pids []int, count int) (more []int) {
		for _, pid := range pids {
			if err = cmp.Or(err, ctx.Err()); err != nil || len(wanted) == 0 {
				return nil
			}
			var names []string
			names, err = descriptors(pid, count)
			for _, name := range names {
				link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, name))
				for _, h := range wanted[link] {
					command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
					h.PID, h.Command = pid, strings.TrimSuffix(string(command), "\n")
				}
				delete(wanted, link)
			}
			if len(names) == count {
				more = append(more, pid)
			}
		}
		return more
	}
	if search([]int{os.Getpid()}, -1); err != nil || len(wanted) == 0 {
		return err
	}
	entries, err := os.ReadDir("/proc")
	if starved(err) {
		return err
	}
	err = nil // of any other no process can be seen
	var same, others []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		info, e := e.Info()
		if err != nil || e != nil || pid == os.Getpid() {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && users[int(st.Uid)] {
			same = append(same, pid)
		} else {
			others = append(others, pid)
		}
	}
	slices.Sort(same)
	slices.Sort(others)
	search(search(slices.Concat(same, others), 64), -1)
	return err
}

// descriptors returns the names of a process's descriptors, no more than count, or all
// if it is -1. A process that has ended, or may not be looked at, has none.
func descriptors(pid, count int) (names []string, err error) {
	d, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if starved(err) {
		return nil, err
	} else if err == nil {
		defer d.Close()
		names, _ = d.Readdirnames(count)
	}
	return names, nil
}

// starved reports whether an error is about the lack of descriptors or memory.
func starved(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENOBUFS)
}

// unixHolders returns the sockets that /proc/net/unix has under a name, with "@" for the
// NUL of an abstract one. A listener's accepted connections have its name too.
func unixHolders(ctx context.Context, name string) ([]Holder, error) {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	networks := map[string]string{"0001": "unix", "0002": "unixgram", "0005": "unixpacket"}
	var list []Holder
	var inodes []uint32
	for line := range strings.Lines(string(text)) {
		var f [7]string // Num RefCount Protocol Flags Type St Inode, and then the path
		for i := range f {
			f[i], line, _ = strings.Cut(strings.TrimLeft(line, " "), " ")
		}
		if line != name+"\n" {
			continue
		}
		h := Holder{Network: networks[f[4]], Path: name, State: bound, UID: -1}
		switch {
		case f[3] == "00010000": // __SO_ACCEPTCON
			h.State = listen
		case h.Network != "unixgram" && f[5] != "01": // not SS_UNCONNECTED
			continue
		}
		inode, _ := strconv.ParseUint(f[6], 10, 32) // a number in each line but the first
		list, inodes = append(list, h), append(inodes, uint32(inode))
	}
	return list, owners(ctx, list, inodes)
}

// olderThan68 reports whether a kernel's release, as in "6.1.0-18-amd64", is before 6.8. A
// release that cannot be read is not.
func olderThan68(release string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return n == 2 && (major < 6 || major == 6 && minor < 8)
}
