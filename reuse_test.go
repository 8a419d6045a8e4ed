package reuse_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

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
		{reuse.Config{}, "Default"},
		{reuse.Config{Addr: reuse.Off, Port: reuse.On}, "Addr=Off,Port=On"},
		{reuse.Config{PortLB: reuse.Prefer, Exclusive: 9, DeferPort: reuse.On}, "PortLB=Prefer,Exclusive=Setting(9),DeferPort=On"},
	} {
		assert.Equal(t, tt.want, tt.value.String())
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	text, conflicts := map[string]bool{}, 0
	configs(len(all), func(c reuse.Config) {
		text[c.String()] = true
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
		assert.ErrorContains(t, err, "reuse: check ", "%v", c)
		assert.NotContains(t, err.Error(), runtime.GOOS, "the verdict is the same on every system")
	})
	assert.NotZero(t, conflicts)
	assert.Len(t, text, 1024)

	for _, o := range all {
		for _, s := range []reuse.Setting{4, 80, 255} {
			err := with(o, s).Check()
			isOptionError(t, err, o, os.ErrInvalid)
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
		assert.ErrorIs(t, tt.c.Control("tcp4", "127.0.0.1:0", rawConn{}), tt.want, "before there is a socket")
	}
}

func TestOptionError(t *testing.T) {
	t.Parallel()
	errno := os.NewSyscallError("setsockopt", syscall.EINVAL)
	err := error(&reuse.OptionError{Op: "set", Option: reuse.Port, Err: errno})
	assert.ErrorIs(t, err, syscall.EINVAL)
	assert.NotErrorIs(t, err, errors.ErrUnsupported)
	assert.EqualError(t, err, "reuse: set Port on "+runtime.GOOS+": "+errno.Error())
	assert.ErrorIs(t, &reuse.OptionError{Err: errors.ErrUnsupported}, errors.ErrUnsupported)
	empty := &reuse.OptionError{}
	assert.NotEmpty(t, empty.Error())
	assert.NotErrorIs(t, empty, errors.ErrUnsupported)
}
