package reuse_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// The tests of this file are not parallel: what the library has learnt from probes is
// the process's, and a test makes it forget that.

// faultErrnos are one of each kind, and all that a call may fail with in a release. 0 is
// a call that succeeds without effect.
func faultErrnos() []syscall.Errno {
	if !release {
		return []syscall.Errno{0, unix.ENOPROTOOPT, unix.EINVAL}
	}
	return []syscall.Errno{
		0, unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.ENOSYS,
		unix.EINVAL, unix.EPERM, unix.EACCES, unix.EADDRINUSE, unix.EADDRNOTAVAIL,
		unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAFNOSUPPORT, unix.EINTR,
	}
}

func saysUnsupported(e syscall.Errno) bool {
	return e == 0 || e == unix.ENOPROTOOPT || e == unix.EOPNOTSUPP || e == unix.ENOSYS
}

// A faultyCall is a system call that fails, and the options that need it.
type faultyCall struct {
	name    string
	number  int
	args    []testproc.Arg
	options []reuse.Option
}

func optionCall(number, level, name int, options ...reuse.Option) faultyCall {
	what := map[int]string{unix.SYS_SETSOCKOPT: "setsockopt", unix.SYS_GETSOCKOPT: "getsockopt"}[number]
	return faultyCall{fmt.Sprint(what, " ", level, " ", name), number, []testproc.Arg{{Index: 1, Value: level}, {Index: 2, Value: name}}, options}
}

var optionCalls = []faultyCall{
	optionCall(unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse.Addr),
	optionCall(unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse.Addr),
	optionCall(unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_REUSEPORT, reuse.Port, reuse.PortLB),
	optionCall(unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_REUSEPORT, reuse.Port, reuse.PortLB),
	optionCall(unix.SYS_SETSOCKOPT, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, reuse.DeferPort),
	optionCall(unix.SYS_GETSOCKOPT, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, reuse.DeferPort),
	optionCall(unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, reuse.Exclusive),
	optionCall(unix.SYS_GETSOCKOPT, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY), // for Exclusive on :: only
}

var netCalls = []faultyCall{
	{name: "socket", number: unix.SYS_SOCKET},
	{name: "socket MPTCP", number: unix.SYS_SOCKET, args: []testproc.Arg{{Index: 2, Value: unix.IPPROTO_MPTCP}}},
	{name: "bind", number: unix.SYS_BIND},
	{name: "listen", number: unix.SYS_LISTEN},
	optionCall(unix.SYS_SETSOCKOPT, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY),
}

// while calls do while a call fails.
func (c faultyCall) while(t *testing.T, errno syscall.Errno, do func()) {
	t.Helper()
	if err := testproc.WhileDenied(do, errno, c.number, c.args...); err != nil {
		t.Skipf("no seccomp filter: %v", err)
	}
}

// operations are the ways to open a socket. With the zero Config they call package net and
// nothing else.
func operations(t *testing.T) map[string]func(reuse.Config) (io.Closer, error) {
	ctx := t.Context()
	tcp, udp := peer(t, "tcp4", "127.0.0.1:0"), peer(t, "udp4", "127.0.0.1:0")
	return map[string]func(reuse.Config) (io.Closer, error){
		"Listen dual-stack":      func(c reuse.Config) (io.Closer, error) { return c.Listen(ctx, "tcp", ":0") },
		"Listen":                 func(c reuse.Config) (io.Closer, error) { return c.Listen(ctx, "tcp4", "127.0.0.1:0") },
		"ListenPacket port 0":    func(c reuse.Config) (io.Closer, error) { return c.ListenPacket(ctx, "udp4", "127.0.0.1:0") },
		"ListenPacket":           func(c reuse.Config) (io.Closer, error) { return c.ListenPacket(ctx, "udp4", "127.9.8.7:20009") },
		"ListenPacket multicast": func(c reuse.Config) (io.Closer, error) { return c.ListenPacket(ctx, "udp4", "224.0.0.251:0") },
		"Dial TCP":               func(c reuse.Config) (io.Closer, error) { return c.Dial(ctx, "tcp4", "127.0.0.1:0", tcp) },
		"Dial UDP":               func(c reuse.Config) (io.Closer, error) { return c.Dial(ctx, "udp4", "127.0.0.1:0", udp) },
	}
}

// Whatever call fails, what is On is in force, or there is an error that has the errno
// and names the option. Only a kernel without the option is forgiven, and only by Prefer
// and Off. What package net calls is an error where it is one for package net. Nothing
// is left open.
func TestInForceOrErrorWhateverFails(t *testing.T) {
	testproc.NeedDeny(t)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the garbage collector would close what leaks
	configs := []reuse.Config{
		{Addr: reuse.On, Port: reuse.On}, {Addr: reuse.Off, Port: reuse.On}, {Port: reuse.Prefer, DeferPort: reuse.Prefer},
	}
	for _, o := range all {
		for _, s := range settings[1:] {
			configs = append(configs, with(o, s))
		}
	}
	opened := 0
	for name, open := range operations(t) {
		possible := map[reuse.Config]reuse.Config{} // and what is in force then
		for _, c := range configs {
			s, err := open(c)
			var oe *reuse.OptionError
			if errors.As(err, &oe) {
				continue
			}
			require.NoError(t, err, "%s %v", name, c)
			possible[c] = inspect(t, s)
			discard(s)
		}
		descriptor, goroutines := freeDescriptor(t), runtime.NumGoroutine()
		for _, call := range append(netCalls, optionCalls...) {
			for _, errno := range faultErrnos() {
				if errno == 0 && (call.number != unix.SYS_SETSOCKOPT || call.options == nil) {
					continue
				}
				var theirs error
				call.while(t, errno, func() { theirs = closed(open(reuse.Config{})) })
				for c, base := range possible {
					what := fmt.Sprintf("%s %v: %s %s", name, c, call.name, unix.ErrnoName(errno))
					var s io.Closer
					var err error
					reuse.ForgetOptions()
					call.while(t, errno, func() { s, err = open(c) })
					if err != nil {
						checkError(t, what, c, call, errno, err, theirs)
						continue
					}
					opened++
					require.NoError(t, theirs, what)
					checkSocket(t, what, c, base, call, errno, s)
					discard(s)
				}
			}
		}
		require.True(t, returns(t, descriptor, goroutines), name)
	}
	assert.NotZero(t, opened)
}

// needs reports whether an option that is On needs a call.
func (c faultyCall) needs(config reuse.Config) bool {
	return slices.ContainsFunc(c.options, func(o reuse.Option) bool { return get(config, o) == reuse.On })
}

func checkSocket(t *testing.T, what string, c, base reuse.Config, call faultyCall, errno syscall.Errno, s io.Closer) {
	t.Helper()
	require.False(t, call.needs(c), what)
	for _, o := range call.options {
		if o == reuse.Addr && testproc.OnGVisor() {
			continue // it may be in force by package net alone
		}
		made := get(c, o) == reuse.Prefer && get(base, o) == reuse.On || get(c, o) == reuse.Off && o != reuse.Exclusive && call.number == unix.SYS_GETSOCKOPT
		require.False(t, made && !saysUnsupported(errno), "%s: what is preferred or Off is forgiven", what)
	}
	got := inspect(t, s)
	for _, o := range all {
		if readable(o) && get(c, o) == reuse.On {
			require.Equal(t, reuse.On, get(got, o), what)
		}
		if get(c, o) == reuse.Off && !slices.Contains(call.options, o) {
			require.NotEqual(t, reuse.On, get(got, o), what)
		}
	}
	if c.Exclusive == reuse.On {
		require.Equal(t, reuse.Off, got.Port, what)
	}
}

func checkError(t *testing.T, what string, c reuse.Config, call faultyCall, errno syscall.Errno, err, theirs error) {
	t.Helper()
	var ne *net.OpError
	require.ErrorAs(t, err, &ne, what)
	if errno != 0 {
		require.ErrorIs(t, err, errno, what)
	}
	if theirs != nil {
		return
	}
	// The call is one of the library's own.
	var oe *reuse.OptionError
	require.ErrorAs(t, err, &oe, "%s: %v", what, err)
	require.True(t, call.needs(c) || !saysUnsupported(errno) || c.Exclusive == reuse.On, "%s: %v", what, err)
	require.Equal(t, saysUnsupported(errno), errors.Is(err, errors.ErrUnsupported), "%s: %v", what, err)
	if call.options != nil {
		require.Contains(t, call.options, oe.Option, "%s: %v", what, err)
	}
}

// What has been read back once is believed. An option that was off before it is cleared
// proves nothing.
func TestReadBackOnce(t *testing.T) {
	testproc.NeedDeny(t)
	reuse.ForgetOptions()
	require.NoError(t, bind(t.Context(), reuse.Config{Port: reuse.Off}, "tcp4", "127.0.0.1:0"))
	for _, want := range []error{unix.EINVAL, nil} {
		var err error
		optionCalls[3].while(t, unix.EINVAL, func() { err = bind(t.Context(), reuse.Config{Port: reuse.On}, "tcp4", "127.0.0.1:0") })
		require.ErrorIs(t, err, want)
		require.NoError(t, bind(t.Context(), reuse.Config{Port: reuse.On}, "tcp4", "127.0.0.1:0"))
	}
}

// With port 0 a UDP socket shares only if a probe finds that the kernel heeds that after
// the bind. If the probe fails, that is an error, and the next call probes again.
func TestPortZeroProbesFirst(t *testing.T) {
	testproc.NeedDeny(t)
	require.NoError(t, bind(t.Context(), reuse.Config{Port: reuse.Prefer}, "udp4", "127.0.0.1:0")) // SO_REUSEPORT reads back
	for _, tt := range []struct {
		setting reuse.Setting
		errno   syscall.Errno
		want    string // in the error, if there is one
	}{
		{reuse.On, unix.EPERM, "probe Port"},
		{reuse.Prefer, unix.EPERM, "probe Port"},
		{reuse.On, 0, "set Port"}, // as in gVisor: the option has no effect
		{reuse.Prefer, 0, ""},
	} {
		reuse.ForgetRules()
		var s socket
		var err error
		optionCalls[0].while(t, tt.errno, func() { s, err = open(t.Context(), with(reuse.Port, tt.setting), "udp4", "127.0.0.1:0") })
		if tt.want == "" {
			require.NoError(t, err)
			assert.Equal(t, reuse.Off, inspect(t, s).Port)
			require.NoError(t, s.Close())
			continue
		}
		require.ErrorContains(t, err, tt.want)
		isOptionError(t, err, reuse.Port, map[bool]error{true: errors.ErrUnsupported}[tt.errno == 0])
		assert.Equal(t, tt.errno != 0, errors.Is(err, unix.EPERM))
	}
	reuse.ForgetRules()
}

// Inspect says Default where there is no option, and otherwise which one it could not
// read.
func TestInspectReportsFaults(t *testing.T) {
	t.Parallel()
	testproc.NeedDeny(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for _, call := range []faultyCall{optionCalls[1], optionCalls[3]} {
		for _, errno := range faultErrnos()[1:] {
			what := fmt.Sprint(call.name, " ", unix.ErrnoName(errno))
			var got reuse.Config
			call.while(t, errno, func() { got, err = reuse.Inspect(l.(syscall.Conn)) })
			if saysUnsupported(errno) {
				require.NoError(t, err, what)
				require.Equal(t, reuse.Default, get(got, call.options[0]), what)
				continue
			}
			isOptionError(t, err, call.options[0], nil, what)
			require.ErrorIs(t, err, errno, what)
			require.ErrorContains(t, err, "get "+call.options[0].String(), what)
			require.Equal(t, reuse.Config{}, got, what)
		}
	}
}

// A probe that gets no socket, or that fails otherwise, is inconclusive and is made again.
// That there is an option, or none, is known from then on.
func TestSupportedReportsFaults(t *testing.T) {
	testproc.NeedDeny(t)
	socket, setPort := netCalls[0], optionCalls[2]
	for _, tt := range []struct {
		call       faultyCall
		errno      syscall.Errno
		conclusive bool
	}{
		{setPort, 0, true},
		{setPort, unix.ENOPROTOOPT, true},
		{setPort, unix.EINVAL, false},
		{socket, unix.EMFILE, false},
		{socket, unix.ENOSYS, false}, // of a filter
		{socket, unix.ENOPROTOOPT, false},
	} {
		what := fmt.Sprint(tt.call.name, " ", unix.ErrnoName(tt.errno))
		reuse.ForgetOptions()
		var failure error
		tt.call.while(t, tt.errno, func() { failure = reuse.Port.Supported() })
		isOptionError(t, failure, reuse.Port, map[bool]error{true: errors.ErrUnsupported}[tt.conclusive], what)
		require.ErrorContains(t, failure, "probe Port", what)
		if tt.errno != 0 {
			require.ErrorIs(t, failure, tt.errno, what)
		}
		var ne *net.OpError
		require.Equal(t, tt.call.number == unix.SYS_SOCKET, errors.As(failure, &ne), what)
		if again := reuse.Port.Supported(); tt.conclusive {
			require.Equal(t, failure, again, "%s: it is known", what)
		} else {
			require.NoError(t, again, "%s: the probe is made again", what)
		}
	}
	socket.while(t, unix.EMFILE, func() {
		assert.NoError(t, reuse.Port.Supported(), "it is known, and needs no socket")
		assert.NoError(t, reuse.Exclusive.Supported(), "the kernel guarantees it")
	})
}
