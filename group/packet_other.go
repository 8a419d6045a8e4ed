//go:build !linux

package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
)

// Other systems: sockets can be opened, used and closed.

func (g *PacketGroup) takeOver(ctx context.Context, members int) error {
	if err := g.mayTakeOver(ctx, members); err != nil {
		return err
	}
	return packetsUnsupported()
}

func (g *PacketGroup) drain(context.Context) error {
	if err := g.begin("drain"); err != nil {
		return err
	}
	errs := []error{packetsUnsupported()}
	for _, c := range g.conns {
		if err := c.endReads(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func packetsUnsupported() error {
	return fmt.Errorf("group: %w: a UDP socket cannot be hidden from new datagrams and still answer on %s", errors.ErrUnsupported, runtime.GOOS)
}

func blindPacket(*net.UDPConn) error        { return nil }
func source(netip.AddrPort) ([]byte, error) { return nil, nil }
