package reuse_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

var (
	settings = []reuse.Setting{reuse.Default, reuse.On, reuse.Off, reuse.Prefer}
	all      = []reuse.Option{reuse.Addr, reuse.Port, reuse.PortLB, reuse.Exclusive, reuse.DeferPort}
)

// configs calls f with every Config there is.
func configs(f func(reuse.Config)) {
	for _, a := range settings {
		for _, p := range settings {
			for _, lb := range settings {
				for _, x := range settings {
					for _, d := range settings {
						f(reuse.Config{Addr: a, Port: p, PortLB: lb, Exclusive: x, DeferPort: d})
					}
				}
			}
		}
	}
}

// get returns one field of a Config.
func get(c reuse.Config, o reuse.Option) reuse.Setting {
	return map[reuse.Option]reuse.Setting{
		reuse.Addr: c.Addr, reuse.Port: c.Port, reuse.PortLB: c.PortLB,
		reuse.Exclusive: c.Exclusive, reuse.DeferPort: c.DeferPort,
	}[o]
}

// with returns a Config with one field set.
func with(o reuse.Option, s reuse.Setting) reuse.Config {
	return map[reuse.Option]reuse.Config{
		reuse.Addr: {Addr: s}, reuse.Port: {Port: s}, reuse.PortLB: {PortLB: s},
		reuse.Exclusive: {Exclusive: s}, reuse.DeferPort: {DeferPort: s},
	}[o]
}

func wanted(s reuse.Setting) bool { return s == reuse.On || s == reuse.Prefer }

func TestStrings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value fmt.Stringer
		want  string
	}{
		{reuse.Default, "Default"},
		{reuse.On, "On"},
		{reuse.Off, "Off"},
		{reuse.Prefer, "Prefer"},
		{reuse.Setting(80), "Setting(80)"},
		{reuse.Addr, "Addr"},
		{reuse.Port, "Port"},
		{reuse.PortLB, "PortLB"},
		{reuse.Exclusive, "Exclusive"},
		{reuse.DeferPort, "DeferPort"},
		{reuse.Option(0), "Option(0)"},
		{reuse.Option(6), "Option(6)"},
		{reuse.Config{}, "Default"},
		{reuse.Config{Addr: reuse.Off, Port: reuse.On}, "Addr=Off,Port=On"},
		{reuse.Config{PortLB: reuse.Prefer, Exclusive: 9, DeferPort: reuse.On}, "PortLB=Prefer,Exclusive=Setting(9),DeferPort=On"},
	} {
		assert.Equal(t, tt.want, tt.value.String())
	}
}

func TestConfigsCompare(t *testing.T) {
	t.Parallel()
	seen := map[reuse.Config]bool{}
	text := map[string]bool{}
	configs(func(c reuse.Config) {
		seen[c] = true
		text[c.String()] = true
	})
	assert.Len(t, seen, 1024)
	assert.Len(t, text, 1024)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	conflicts := 0
	configs(func(c reuse.Config) {
		want := wanted(c.Exclusive) && (wanted(c.Addr) || wanted(c.Port) || wanted(c.PortLB)) ||
			wanted(c.Port) && c.PortLB == reuse.Off || c.Port == reuse.Off && wanted(c.PortLB)
		err := c.Check()
		if !want {
			assert.NoError(t, err, "%v", c)
			return
		}
		conflicts++
		require.ErrorIs(t, err, reuse.ErrConflict, "%v", c)
		assert.NotErrorIs(t, err, errors.ErrUnsupported, "%v", c)
		var oe *reuse.OptionError
		require.ErrorAs(t, err, &oe, "%v", c)
		assert.Equal(t, "check", oe.Op)
		assert.NotContains(t, err.Error(), runtime.GOOS, "the verdict is the same on every system")
	})
	assert.NotZero(t, conflicts)

	for _, o := range all {
		for _, s := range []reuse.Setting{4, 80, 255} {
			err := with(o, s).Check()
			var oe *reuse.OptionError
			require.ErrorAs(t, err, &oe)
			assert.Equal(t, o, oe.Option)
			assert.ErrorIs(t, err, os.ErrInvalid)
			assert.NotErrorIs(t, err, reuse.ErrConflict)
			assert.Contains(t, err.Error(), s.String())
		}
	}
}

// A Config that contradicts itself, or is out of range, is refused by everything
// that takes one, before there is a socket.
func TestCheckComesFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		c    reuse.Config
		want error
	}{
		{reuse.Config{Exclusive: reuse.On, Port: reuse.On}, reuse.ErrConflict},
		{reuse.Config{Exclusive: reuse.Prefer, Addr: reuse.Prefer}, reuse.ErrConflict},
		{reuse.Config{Port: reuse.Prefer, PortLB: reuse.Off}, reuse.ErrConflict},
		{reuse.Config{Port: 80}, os.ErrInvalid},
	} {
		for name, call := range calls(t, tt.c) {
			err := call("tcp", "127.0.0.1:0")
			assert.ErrorIs(t, err, tt.want, "%s %v", name, tt.c)
			var oe *reuse.OptionError
			assert.ErrorAs(t, err, &oe, "%s %v", name, tt.c)
		}
		err := tt.c.Control("tcp4", "127.0.0.1:0", noSocket{t})
		assert.ErrorIs(t, err, tt.want)
	}
}

// noSocket is a RawConn that must not be touched.
type noSocket struct{ t testing.TB }

func (n noSocket) Control(func(uintptr)) error    { n.t.Error("there is a socket"); return nil }
func (n noSocket) Read(func(uintptr) bool) error  { return nil }
func (n noSocket) Write(func(uintptr) bool) error { return nil }

// calls returns what can be done with a Config and an address. What succeeds is
// closed.
func calls(t testing.TB, c reuse.Config) map[string]func(network, address string) error {
	ctx := t.Context()
	return map[string]func(network, address string) error{
		"Listen": func(network, address string) error {
			l, err := c.Listen(ctx, network, address)
			if err == nil {
				return l.Close()
			}
			assert.Nil(t, l)
			return netError(t, "listen", err)
		},
		"ListenPacket": func(network, address string) error {
			p, err := c.ListenPacket(ctx, network, address)
			if err == nil {
				return p.Close()
			}
			assert.Nil(t, p)
			return netError(t, "listen", err)
		},
		"Dial to": func(network, address string) error {
			conn, err := c.Dial(ctx, network, "", address)
			if err == nil {
				return conn.Close()
			}
			assert.Nil(t, conn)
			return netError(t, "dial", err)
		},
		"Dial from": func(network, address string) error {
			conn, err := c.Dial(ctx, network, address, "127.0.0.1:9")
			if err == nil {
				return conn.Close()
			}
			assert.Nil(t, conn)
			return netError(t, "dial", err)
		},
		"ListenConfig": func(network, address string) error {
			lc, err := c.ListenConfig(net.ListenConfig{})
			if err != nil {
				return err
			}
			l, err := lc.Listen(ctx, network, address)
			if err != nil {
				return err
			}
			return l.Close()
		},
		"Dialer": func(network, address string) error {
			d, err := c.Dialer(net.Dialer{})
			if err != nil {
				return err
			}
			conn, err := d.DialContext(ctx, network, address)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	}
}

// netError checks that an error is one that users of package net expect.
func netError(t testing.TB, op string, err error) error {
	t.Helper()
	var oe *net.OpError
	if assert.ErrorAs(t, err, &oe) {
		assert.Equal(t, op, oe.Op)
	}
	return err
}

func TestOptionError(t *testing.T) {
	t.Parallel()
	errno := os.NewSyscallError("setsockopt", syscall.EINVAL)
	err := error(&reuse.OptionError{Op: "set", Option: reuse.Port, Err: errno})
	assert.ErrorIs(t, err, syscall.EINVAL)
	assert.NotErrorIs(t, err, errors.ErrUnsupported)
	for _, word := range []string{"set", "Port", runtime.GOOS, errno.Error()} {
		assert.Contains(t, err.Error(), word)
	}
	assert.ErrorIs(t, &reuse.OptionError{Err: errors.ErrUnsupported}, errors.ErrUnsupported)
	empty := &reuse.OptionError{}
	assert.NotEmpty(t, empty.Error())
	assert.NotErrorIs(t, empty, errors.ErrUnsupported)
}
