package reuse_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// Every call that the library makes on a socket fails once, with every errno that it
// may fail with. How: testproc.Faults, a seccomp filter.

var faultErrnos = []syscall.Errno{
	unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.ENOSYS,
	unix.EINVAL, unix.EPERM, unix.EACCES, unix.EADDRINUSE, unix.EADDRNOTAVAIL,
	unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAFNOSUPPORT, unix.EINTR,
}

// errnos are those that are tried everywhere: with -short one of each kind.
func errnos() []syscall.Errno {
	if testing.Short() {
		return []syscall.Errno{unix.ENOPROTOOPT, unix.EINVAL, unix.EMFILE}
	}
	return faultErrnos
}

func saysUnsupported(e syscall.Errno) bool {
	return e == unix.ENOPROTOOPT || e == unix.EOPNOTSUPP || e == unix.ENOSYS
}

// An operation opens a socket, as this library and as package net do.
type operation struct {
	name   string
	ours   func(reuse.Config) (io.Closer, error)
	theirs func() (io.Closer, error)
}

func operations(t *testing.T) []operation {
	ctx := t.Context()
	tcp, udp := peer(t, "tcp4", "127.0.0.1:0"), peer(t, "udp4", "127.0.0.1:0")
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	port := free.LocalAddr().String()
	require.NoError(t, free.Close())
	var list []operation
	for _, at := range [][2]string{{"tcp", ":0"}, {"tcp4", "127.0.0.1:0"}} {
		list = append(list, operation{"Listen " + at[0],
			func(c reuse.Config) (io.Closer, error) { return c.Listen(ctx, at[0], at[1]) },
			func() (io.Closer, error) { return net.Listen(at[0], at[1]) },
		})
	}
	for _, at := range []string{"127.0.0.1:0", port, "224.0.0.251:0"} {
		list = append(list, operation{"ListenPacket " + at,
			func(c reuse.Config) (io.Closer, error) { return c.ListenPacket(ctx, "udp4", at) },
			func() (io.Closer, error) { return net.ListenPacket("udp4", at) },
		})
	}
	localhost := net.IPv4(127, 0, 0, 1)
	for _, at := range []struct {
		network, remote string
		local           net.Addr
	}{{"tcp4", tcp, &net.TCPAddr{IP: localhost}}, {"udp4", udp, &net.UDPAddr{IP: localhost}}} {
		list = append(list, operation{"Dial " + at.network,
			func(c reuse.Config) (io.Closer, error) { return c.Dial(ctx, at.network, "127.0.0.1:0", at.remote) },
			func() (io.Closer, error) {
				return (&net.Dialer{LocalAddr: at.local}).DialContext(ctx, at.network, at.remote)
			},
		})
	}
	return list
}

// faultConfigs are those with each option alone, and some with several.
func faultConfigs() []reuse.Config {
	list := []reuse.Config{
		{Addr: reuse.On, Port: reuse.On}, {Addr: reuse.Off, Port: reuse.On}, {Port: reuse.Prefer, DeferPort: reuse.Prefer},
	}
	for _, o := range all {
		for _, s := range []reuse.Setting{reuse.On, reuse.Prefer, reuse.Off} {
			list = append(list, with(o, s))
		}
	}
	return list
}

// optionsOf are the options that a call is about.
func optionsOf(c testproc.Call) []reuse.Option {
	if c.Number != unix.SYS_SETSOCKOPT && c.Number != unix.SYS_GETSOCKOPT {
		return nil
	}
	switch [2]int{c.A, c.B} {
	case [2]int{unix.SOL_SOCKET, unix.SO_REUSEADDR}:
		return []reuse.Option{reuse.Addr}
	case [2]int{unix.SOL_SOCKET, unix.SO_REUSEPORT}:
		return []reuse.Option{reuse.Port, reuse.PortLB}
	case [2]int{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT}:
		return []reuse.Option{reuse.DeferPort}
	}
	return nil
}

// forgiven tells whether a Config asks for an option only where there is one.
func forgiven(c reuse.Config, call testproc.Call) bool {
	return (call.Number == unix.SYS_SETSOCKOPT || call.Number == unix.SYS_GETSOCKOPT) &&
		!slices.ContainsFunc(optionsOf(call), func(o reuse.Option) bool { return get(c, o) == reuse.On })
}

func distinct(calls []testproc.Call) (list []testproc.Call) {
	for _, c := range calls {
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

// state is what must not grow.
type state struct{ files, goroutines int }

func stateNow() state { return state{openFiles(), runtime.NumGoroutine()} }

// clean is stateNow after the garbage collector, which is off otherwise: it closes what
// leaks.
func clean() state {
	runtime.GC()
	return stateNow()
}

// isBack waits until the process has no more than it had. A peer may still be closing.
func (s state) isBack() bool {
	for range 100_000 {
		if now := stateNow(); now.files <= s.files && now.goroutines <= s.goroutines {
			return true
		}
		runtime.Gosched()
	}
	return false
}

// What fails for good is an error that has the errno; if it is one of the library's own
// calls, the option is named, and only a kernel without it is forgiven, and only by who
// prefers. What package net calls is an error where it is one for package net.
func TestFaults(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) { // where nobody else takes ports
		return
	}
	f := testproc.Faulty(t)
	if f == nil {
		return
	}
	run := func(fault testproc.Fault, open func() (io.Closer, error)) (calls []testproc.Call, hit bool, err error) {
		var s io.Closer
		reuse.Forget()
		calls, hit = f.Run(fault, func() { s, err = open() })
		if err == nil {
			discard(s)
		}
		return calls, hit, err
	}
	failed, forgave := 0, 0
	for _, op := range operations(t) {
		_, _, err := run(testproc.Fault{}, op.theirs) // package net asks the kernel what it has
		require.NoError(t, err, op.name)
		calls, _, err := run(testproc.Fault{}, op.theirs)
		require.NoError(t, err, op.name)
		net := map[testproc.Fault]error{} // what package net makes of it
		for _, call := range distinct(calls) {
			for _, errno := range errnos() {
				fault := testproc.Fault{Errno: errno, Call: call}
				_, _, net[fault] = run(fault, op.theirs)
			}
		}
		for i, c := range faultConfigs() {
			calls, _, err := run(testproc.Fault{}, func() (io.Closer, error) { return op.ours(c) })
			if err != nil {
				var oe *reuse.OptionError
				require.ErrorAs(t, err, &oe, "%s %v", op.name, c) // it is refused
				continue
			}
			before := clean()
			for _, call := range distinct(calls) {
				if i >= 3 && len(optionsOf(call)) == 0 {
					continue // it is package net's, and has been seen with those before
				}
				for _, errno := range errnos() {
					what := fmt.Sprint(op.name, " ", c, ": ", call, " ", unix.ErrnoName(errno))
					fault := testproc.Fault{Errno: errno, Call: call}
					_, hit, err := run(fault, func() (io.Closer, error) { return op.ours(c) })
					require.True(t, hit, what)
					theirs, netsOwn := net[fault]
					checkFault(t, what, c, fault, err, theirs, netsOwn)
					if err == nil {
						forgave++
					} else {
						failed++
					}
				}
			}
			require.True(t, before.isBack(), "%s %v: %v, was %v", op.name, c, stateNow(), before)
		}
	}
	t.Log(failed, "failed,", forgave, "did not")
	assert.NotZero(t, failed)
	assert.NotZero(t, forgave)
}

func checkFault(t *testing.T, what string, c reuse.Config, fault testproc.Fault, err, theirs error, netsOwn bool) {
	t.Helper()
	if netsOwn {
		// The library may need the same for itself, and be stricter.
		if theirs != nil {
			require.Error(t, err, what)
		}
		if err == nil {
			return
		}
		if theirs == nil {
			require.NotEmpty(t, optionsOf(fault.Call), "%s: %v", what, err)
		}
	} else {
		options := optionsOf(fault.Call)
		require.NotEmpty(t, options, what)
		if forgiven(c, fault.Call) && saysUnsupported(fault.Errno) {
			require.NoError(t, err, what)
			return
		}
		var oe *reuse.OptionError
		require.ErrorAs(t, err, &oe, what)
		require.Contains(t, options, oe.Option, "%s: %v", what, err)
		require.Equal(t, saysUnsupported(fault.Errno), errors.Is(err, errors.ErrUnsupported), "%s: %v", what, err)
	}
	var ne *net.OpError
	require.ErrorAs(t, err, &ne, what)
	require.ErrorIs(t, err, fault.Errno, what)
}

// Any single call fails: what is asked for is in force then, perhaps on the plain TCP
// socket that package net falls back to, or there is an error that has the errno.
func TestSingleFaults(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) { // where nobody else takes ports
		return
	}
	f := testproc.Faulty(t)
	if f == nil {
		return
	}
	failed, opened := 0, 0
	for _, op := range operations(t) {
		for _, c := range []reuse.Config{{}, {Port: reuse.On}, {Addr: reuse.On, Port: reuse.On}, {Exclusive: reuse.On}, {DeferPort: reuse.On}} {
			if s, err := op.ours(c); err == nil {
				discard(s)
			} else {
				continue
			}
			before := clean()
			for nth, hit := 1, true; hit; nth++ {
				for _, errno := range errnos() {
					var s io.Closer
					var err error
					_, hit = f.Run(testproc.Fault{Errno: errno, Nth: nth}, func() { s, err = op.ours(c) })
					what := fmt.Sprint(op.name, " ", c, ": call ", nth, " ", unix.ErrnoName(errno))
					if err != nil {
						require.True(t, hit, what)
						require.ErrorIs(t, err, errno, what)
						failed++
						continue
					}
					opened++
					got, err := reuse.Inspect(s.(syscall.Conn))
					require.NoError(t, err, what)
					for _, o := range bits["linux"] {
						if get(c, o) == reuse.On {
							require.Equal(t, reuse.On, get(got, o), what)
						}
					}
					if c.Exclusive == reuse.On {
						require.Equal(t, reuse.Off, got.Port, what)
					}
					discard(s)
				}
			}
			require.True(t, before.isBack(), "%s %v: %v, was %v", op.name, c, stateNow(), before)
		}
	}
	t.Log(failed, "failed,", opened, "opened")
	assert.NotZero(t, failed)
	assert.NotZero(t, opened)
}

// What has been read back once is believed: the next Listen makes the calls that package
// net makes, and one setsockopt.
func TestReadBackOnce(t *testing.T) {
	t.Parallel()
	f := testproc.Faulty(t)
	if f == nil {
		return
	}
	listen := func(c reuse.Config) []testproc.Call {
		calls, _ := f.Run(testproc.Fault{}, func() { require.NoError(t, bind(t.Context(), c, "tcp4", "127.0.0.1:0")) })
		return calls
	}
	listen(reuse.Config{}) // package net asks the kernel what it has
	plain := listen(reuse.Config{})
	reuse.Forget()
	assert.Len(t, listen(reuse.Config{Port: reuse.On}), len(plain)+2)
	assert.Len(t, listen(reuse.Config{Port: reuse.On}), len(plain)+1)
}

// Inspect says Default where there is no option, and otherwise which one it could not
// read.
func TestInspectFaults(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) { // where nobody else takes ports
		return
	}
	f := testproc.Faulty(t)
	if f == nil {
		return
	}
	for _, network := range []string{"tcp4", "udp4"} {
		s, _, err := open(t.Context(), reuse.Config{Port: reuse.On}, network, "127.0.0.1:0")
		require.NoError(t, err)
		calls, _ := f.Run(testproc.Fault{}, func() { _, err = reuse.Inspect(s) })
		require.NoError(t, err)
		require.NotEmpty(t, calls)
		before := clean()
		for _, call := range distinct(calls) {
			for _, errno := range faultErrnos {
				var got reuse.Config
				f.Run(testproc.Fault{Errno: errno, Call: call}, func() { got, err = reuse.Inspect(s) })
				options := optionsOf(call)
				if saysUnsupported(errno) {
					require.NoError(t, err, call)
					for _, o := range options {
						require.Equal(t, reuse.Default, get(got, o), call)
					}
					continue
				}
				var oe *reuse.OptionError
				require.ErrorAs(t, err, &oe, call)
				require.Equal(t, "get", oe.Op, call)
				require.Contains(t, options, oe.Option, call)
				require.ErrorIs(t, err, errno, call)
				require.Equal(t, reuse.Config{}, got, call)
			}
		}
		require.True(t, before.isBack(), network)
		require.NoError(t, s.Close())
	}
}

// A probe that got no socket, or that failed otherwise, tells nothing and is tried again;
// that there is an option, or none, is known for good.
func TestSupportedFaults(t *testing.T) {
	t.Parallel()
	for _, last := range []syscall.Errno{0, unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.ENOSYS} {
		t.Run(strconv.Itoa(int(last)), func(t *testing.T) {
			t.Parallel()
			if f := testproc.Faulty(t); f != nil {
				supportedFaults(t, f, last)
			}
		})
	}
}

func supportedFaults(t *testing.T, f *testproc.Faults, last syscall.Errno) {
	// What package net finds out once is not the probe's.
	l, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	before := clean()
	probe := func(o reuse.Option) (calls []testproc.Call) {
		calls, _ = f.Run(testproc.Fault{}, func() { err = o.Supported() })
		return calls
	}
	require.Empty(t, probe(reuse.Exclusive), "the kernel guarantees it")
	require.NoError(t, err)
	for _, o := range []reuse.Option{reuse.Addr, reuse.Port, reuse.PortLB, reuse.DeferPort} {
		set := map[reuse.Option]testproc.Call{
			reuse.Addr:      {A: unix.SOL_SOCKET, B: unix.SO_REUSEADDR},
			reuse.Port:      {A: unix.SOL_SOCKET, B: unix.SO_REUSEPORT},
			reuse.PortLB:    {A: unix.SOL_SOCKET, B: unix.SO_REUSEPORT},
			reuse.DeferPort: {A: unix.IPPROTO_IP, B: unix.IP_BIND_ADDRESS_NO_PORT},
		}[o]
		set.Number = unix.SYS_SETSOCKOPT
		inconclusive := func(errno syscall.Errno, calls ...testproc.Call) {
			t.Helper()
			for _, call := range calls {
				what := fmt.Sprint(o, ": ", call, " ", unix.ErrnoName(errno))
				_, hit := f.Run(testproc.Fault{Errno: errno, Call: call}, func() { err = o.Supported() })
				require.True(t, hit, what)
				var oe *reuse.OptionError
				require.ErrorAs(t, err, &oe, what)
				require.Equal(t, reuse.OptionError{Op: "probe", Option: o, Err: oe.Err}, *oe, what)
				require.ErrorIs(t, err, errno, what)
				require.NotErrorIs(t, err, errors.ErrUnsupported, what)
			}
		}
		for _, errno := range faultErrnos {
			inconclusive(errno, testproc.Call{Number: unix.SYS_SOCKET})
			if !saysUnsupported(errno) {
				inconclusive(errno, set)
			}
		}
		if o == reuse.Addr && last != 0 {
			inconclusive(last, set) // package net has set it before, and failed
			require.NotEmpty(t, probe(o), "it is tried again")
			require.NoError(t, err)
			continue
		}
		f.Run(testproc.Fault{Errno: last, Call: set}, func() { err = o.Supported() })
		if last == 0 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, last)
			require.ErrorIs(t, err, errors.ErrUnsupported)
		}
		known := err
		require.Empty(t, probe(o), "%v is known", o)
		require.Equal(t, known, err)
	}
	require.True(t, before.isBack())
}
