//go:build windows || (darwin && !ios) || freebsd || netbsd || openbsd

package inuse

import (
	"context"
	"runtime"
	"syscall"

	"github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"

	"example.com/reuse/internal/semantics"
)

// Here every socket of the machine is read, by gopsutil: from GetExtendedTcpTable on
// Windows, from lsof on macOS and FreeBSD, and from netstat, which knows no
// processes, on NetBSD and OpenBSD. That of Windows has run under Wine, and the others
// have not been run.
func (t target) look(ctx context.Context) ([]Holder, error) {
	stats, err := net.ConnectionsWithContext(ctx, t.proto.String())
	if err != nil {
		return nil, err
	}
	var list []Holder
	for _, s := range stats {
		r := row{
			ipv6:  s.Family == syscall.AF_INET6,
			local: s.Laddr.IP, localPort: s.Laddr.Port,
			remote: s.Raddr.IP, remotePort: s.Raddr.Port,
			state: s.Status,
			pid:   int(s.Pid),
		}
		if h, ok := r.holder(t.proto); ok && h.Local.Port() == t.local.Port() && t.overlaps(h.Local.Addr(), h.v6only()) {
			list = append(list, h)
		}
	}
	for i := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list[i].identify(ctx)
	}
	return list, nil
}

// identify fills in what is known of the holder's process, which may be gone.
func (h *Holder) identify(ctx context.Context) {
	if h.PID == 0 {
		return
	}
	p, err := process.NewProcessWithContext(ctx, int32(h.PID))
	if err != nil {
		return
	}
	if name, err := p.NameWithContext(ctx); err == nil {
		h.Command = name
	}
	if uids, err := p.UidsWithContext(ctx); err == nil && len(uids) > 1 {
		h.UID = int(uids[1]) // the effective one
	}
}

// dualStack tells whether package net makes a dual-stack socket for a wildcard.
func dualStack() bool { return runtime.GOOS != "openbsd" }

func unseen(semantics.Proto) string { return "" }
