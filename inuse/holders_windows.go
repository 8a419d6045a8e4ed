package inuse

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"

	"example.com/reuse/internal/semantics"
)

// A table is one that iphlpapi.dll returns: how to ask for it, and where a row has its
// fields (MIB_TCPROW_OWNER_PID and its like, of iprtrmib.h). A port is in network byte
// order in the first two bytes of its field.
type table struct {
	call          string
	family, class uintptr

	size, local, localPort, remote, remotePort, state, pid int // -1: no such field
}

var tables = map[semantics.Proto][]table{
	semantics.TCP: {
		{"GetExtendedTcpTable", windows.AF_INET, 5, 24, 4, 8, 12, 16, 0, 20}, // TCP_TABLE_OWNER_PID_ALL
		{"GetExtendedTcpTable", windows.AF_INET6, 5, 56, 0, 20, 24, 44, 48, 52},
	},
	semantics.UDP: {
		{"GetExtendedUdpTable", windows.AF_INET, 1, 12, 0, 4, -1, -1, -1, 8}, // UDP_TABLE_OWNER_PID
		{"GetExtendedUdpTable", windows.AF_INET6, 1, 28, 0, 20, -1, -1, -1, 24},
	},
}

// stateNames are the states of MIB_TCP_STATE, by number.
var stateNames = [...]string{1: bound, 2: listen, 3: "SYN_SENT", 4: "SYN_RECV", 5: "ESTABLISHED", 6: "FIN_WAIT1",
	7: finWait2, 8: closeWait, 9: "CLOSING", 10: "LAST_ACK", 11: timeWait, 12: bound}

// holders reads all sockets of the machine. Windows reports no users, and not which :: is
// dual-stack. This has run under Wine only.
func (t target) holders(ctx context.Context) (list []Holder, unseen string, err error) {
	for _, table := range tables[t.proto] {
		rows, err := table.read()
		if err != nil {
			return nil, "", err
		}
		for ; len(rows) >= table.size && ctx.Err() == nil; rows = rows[table.size:] {
			h := table.holder(rows, t.proto)
			if h.Local.Port() == t.local.Port() && t.overlaps(h.Local.Addr(), false) {
				h.Command = command(h.PID)
				list = append(list, h)
			}
		}
	}
	order(list)
	return list, "", ctx.Err()
}

func (l table) read() ([]byte, error) {
	proc := windows.NewLazySystemDLL("iphlpapi.dll").NewProc(l.call)
	if err := proc.Find(); err != nil {
		return nil, err
	}
	for size := uint32(1 << 14); ; size += size / 4 { // more sockets may come before the next call
		b := make([]byte, size)
		r, _, _ := proc.Call(uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0, l.family, l.class, 0)
		if err := windows.Errno(r); err == 0 {
			rows := int(binary.LittleEndian.Uint32(b)) * l.size
			return b[4:min(4+rows, len(b))], nil
		} else if err != windows.ERROR_INSUFFICIENT_BUFFER {
			return nil, os.NewSyscallError(l.call, err)
		}
	}
}

func (l table) holder(row []byte, p semantics.Proto) Holder {
	address := func(ip, port int) netip.AddrPort {
		a := netip.AddrFrom4([4]byte(row[ip:]))
		if l.family == windows.AF_INET6 { // the scope is behind the address
			a = netip.AddrFrom16([16]byte(row[ip:])).Unmap()
			if scope := binary.LittleEndian.Uint32(row[ip+16:]); scope != 0 && a.IsLinkLocalUnicast() {
				a = a.WithZone(interfaceName(int(scope)))
			}
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(row[port:]))
	}
	h := Holder{Local: address(l.local, l.localPort), State: bound, UID: -1, PID: int(binary.LittleEndian.Uint32(row[l.pid:]))}
	h.Network = networkOf(p, h.Local.Addr(), false)
	h.vague = h.Local.Addr() == netip.IPv6Unspecified()
	if l.state >= 0 {
		state := int(binary.LittleEndian.Uint32(row[l.state:]))
		if h.State = fmt.Sprint("state ", state); state < len(stateNames) {
			h.State = stateNames[state]
		}
		if remote := address(l.remote, l.remotePort); h.State != listen && remote.Port() != 0 {
			h.Remote = remote
		}
	}
	h.orphan = h.State == timeWait && h.PID == 0
	return h
}

// command returns the name of a process's program, "" if this user may not see it.
func command(pid int) string {
	p, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return ""
	}
	defer func() { _ = windows.CloseHandle(p) }()
	name := make([]uint16, windows.MAX_LONG_PATH)
	n := uint32(len(name))
	if windows.QueryFullProcessImageName(p, 0, &name[0], &n) != nil {
		return ""
	}
	return filepath.Base(windows.UTF16ToString(name[:n]))
}
