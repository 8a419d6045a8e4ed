package reuse

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// For an MPTCP listener that falls back to plain TCP, package net calls Control a
// second time and forgets the first error. Listen joins them if they differ.
func TestBothErrors(t *testing.T) {
	t.Parallel()
	if table(Addr).name == 0 {
		t.Skip("no options here")
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	notSocket, err := r.SyscallConn()
	require.NoError(t, err)

	listen := func(rcs ...interface {
		Control(func(uintptr)) error
	}) error {
		s := optionSetter{config: Config{Addr: On}}
		var err error
		for _, rc := range rcs {
			err = s.control("tcp4", "127.0.0.1:0", rawControl{rc.Control})
		}
		require.Error(t, err)
		return s.bothErrors(&net.OpError{Op: "listen", Err: err})
	}
	noDescriptor := rawControl{func(f func(uintptr)) error { f(^uintptr(0) >> 1); return nil }}

	var one, two *OptionError
	require.ErrorAs(t, listen(noDescriptor), &one)
	require.ErrorAs(t, listen(notSocket), &two)
	first, second := errors.Unwrap(one.Err), errors.Unwrap(two.Err)
	require.NotEqual(t, first.Error(), second.Error())
	both := listen(noDescriptor, notSocket)
	assert.ErrorIs(t, both, first)
	assert.ErrorIs(t, both, second)
	var oe *net.OpError
	require.ErrorAs(t, both, &oe)
	assert.Equal(t, "listen", oe.Op)

	assert.Equal(t, listen(notSocket).Error(), listen(notSocket, notSocket).Error(), "the same twice is said once")
}

// rawControl is a RawConn of nothing but Control.
type rawControl struct {
	control func(func(uintptr)) error
}

func (r rawControl) Control(f func(uintptr)) error { return r.control(f) }
func (rawControl) Read(func(uintptr) bool) error   { return nil }
func (rawControl) Write(func(uintptr) bool) error  { return nil }
