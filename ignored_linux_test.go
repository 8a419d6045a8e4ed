package reuse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// ignored is a child whose every setsockopt succeeds without effect. It answers with
// the first option that is believed nevertheless.
func ignored(_ []string, _ *bufio.Scanner, out io.Writer) error {
	if err := testproc.Deny(0, unix.SYS_SETSOCKOPT); err != nil {
		fmt.Fprintln(out, "skip:", err)
		return nil
	}
	fmt.Fprintln(out, "ignoring")
	ctx := context.Background()
	remote, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer remote.Close()
	for _, o := range []reuse.Option{reuse.Addr, reuse.Port, reuse.PortLB, reuse.DeferPort} {
		c := with(o, reuse.On)
		lc, lcErr := c.ListenConfig(net.ListenConfig{})
		d, dErr := c.Dialer(net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}})
		for name, try := range map[string]func() error{
			"Supported":    o.Supported,
			"Listen":       func() error { return bind(ctx, c, "tcp4", "127.0.0.1:0") },
			"ListenPacket": func() error { return bind(ctx, c, "udp4", "127.0.0.1:0") },
			"ListenPacket with a port": func() error {
				return bind(ctx, c, "udp4", remote.Addr().String())
			},
			"ListenConfig": func() error {
				if lcErr != nil {
					return lcErr
				}
				l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
				if err == nil {
					l.Close()
				}
				return err
			},
			"Dial": func() error {
				conn, err := c.Dial(ctx, "tcp4", "127.0.0.1:0", remote.Addr().String())
				if err == nil {
					conn.Close()
				}
				return err
			},
			"Dial UDP": func() error {
				conn, err := c.Dial(ctx, "udp4", "127.0.0.1:0", remote.Addr().String())
				if err == nil {
					conn.Close()
				}
				return err
			},
			"Dialer": func() error {
				if dErr != nil {
					return dErr
				}
				conn, err := d.DialContext(ctx, "tcp4", remote.Addr().String())
				if err == nil {
					conn.Close()
				}
				return err
			},
		} {
			if err := try(); !errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("%v is believed by %s: %w", o, name, err)
			}
		}
	}
	// What must be cleared was never set, so that an exclusive socket is one.
	l, err := reuse.Config{Exclusive: reuse.On}.Listen(ctx, "tcp", ":0")
	if err != nil {
		return err
	}
	defer l.Close()
	if err := bind(ctx, reuse.Config{}, "tcp4", net.JoinHostPort("127.0.0.1", portOf(l.Addr()))); !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("beside an exclusive listener: %w", err)
	}
	return nil
}

// Each option is looked at once it has been set.
func TestIgnoredOptions(t *testing.T) {
	t.Parallel()
	testproc.NeedDeny(t)
	if answer := testproc.Start(t, "ignored").Receive(); answer != "ignoring" {
		t.Skip(answer)
	}
}
