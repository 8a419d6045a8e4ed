package group_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/group"
	"example.com/reuse/internal/testproc"
)

// Bad input is an error that says what is wrong, and nothing stays open.
func TestBadInput(t *testing.T) {
	if !testproc.Netns(t) { // alone, so that descriptors can be counted
		return
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	ctx := t.Context()
	busy, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	open := start(t, 2, "tcp4", "127.0.0.1:0")
	closed := start(t, 2, "tcp4", "127.0.0.1:0")
	require.NoError(t, closed.g.Close())
	require.NoError(t, closed.g.Listeners()[0].Close()) // as http.Server does
	require.NoError(t, <-closed.done)
	drained := start(t, 2, "tcp4", "127.0.0.1:0")
	assert.ErrorContains(t, drained.g.Drain(ctx), "no process has taken over")
	require.NoError(t, <-drained.done)

	listen := func(c group.Config, ctx context.Context, network, address string) func() error {
		return func() error {
			g, err := c.Listen(ctx, network, address)
			if err == nil {
				return g.Close()
			}
			return err
		}
	}
	none := func() net.Listener { l, _ := net.Listen("unix", "@reuse-group-bad"); return l }
	unknown := net.UnknownNetworkError("telegraph")
	for name, tt := range map[string]struct {
		call func() error
		want error
	}{
		"size of a million":   {listen(group.Config{Size: 1_000_000}, ctx, "tcp4", "127.0.0.1:0"), os.ErrInvalid},
		"negative size":       {listen(group.Config{Size: -1}, ctx, "tcp4", "127.0.0.1:0"), os.ErrInvalid},
		"negative handshake":  {listen(group.Config{Handshake: -1}, ctx, "tcp4", "127.0.0.1:0"), os.ErrInvalid},
		"negative hold":       {listen(group.Config{HoldFor: -1}, ctx, "tcp4", "127.0.0.1:0"), os.ErrInvalid},
		"exclusive":           {listen(group.Config{Socket: reuse.Config{Exclusive: reuse.On}}, ctx, "tcp4", "127.0.0.1:0"), reuse.ErrConflict},
		"unix":                {listen(group.Config{}, ctx, "unix", "@reuse-group-bad"), errors.ErrUnsupported},
		"ip":                  {listen(group.Config{}, ctx, "ip4:icmp", "127.0.0.1"), net.UnknownNetworkError("ip4:icmp")},
		"ip4":                 {listen(group.Config{}, ctx, "ip4", "127.0.0.1"), errors.ErrUnsupported},
		"unknown network":     {listen(group.Config{}, ctx, "telegraph", "127.0.0.1:0"), unknown},
		"no network":          {listen(group.Config{}, ctx, "", "127.0.0.1:0"), net.UnknownNetworkError("")},
		"udp":                 {listen(group.Config{}, ctx, "udp", "127.0.0.1:0"), net.UnknownNetworkError("udp")},
		"wrong family":        {listen(group.Config{}, ctx, "tcp4", "[::1]:0"), &net.AddrError{}},
		"no port":             {listen(group.Config{}, ctx, "tcp4", "127.0.0.1"), &net.AddrError{}},
		"not an own address":  {listen(group.Config{}, ctx, "tcp4", "192.0.2.250:0"), unix.EADDRNOTAVAIL},
		"held by another":     {listen(group.Config{}, ctx, "tcp4", busy.Addr().String()), unix.EADDRINUSE},
		"Listen, ctx done":    {listen(group.Config{}, done, "tcp4", "127.0.0.1:0"), context.Canceled},
		"Listen, port, done":  {listen(group.Config{}, done, "tcp4", open.g.Addr().String()), context.Canceled},
		"TakeOver, ctx done":  {func() error { return open.g.TakeOver(done, 0) }, context.Canceled},
		"too many members":    {func() error { return open.g.TakeOver(ctx, 3) }, os.ErrInvalid},
		"far too many":        {func() error { return open.g.TakeOver(ctx, 1_000_000) }, os.ErrInvalid},
		"too few members":     {func() error { return open.g.TakeOver(ctx, 1) }, os.ErrInvalid},
		"negative members":    {func() error { return open.g.TakeOver(ctx, -1) }, os.ErrInvalid},
		"TakeOver, closed":    {func() error { return closed.g.TakeOver(ctx, 0) }, net.ErrClosed},
		"TakeOver, drained":   {func() error { return drained.g.TakeOver(ctx, 0) }, net.ErrClosed},
		"Drain, closed":       {func() error { return closed.g.Drain(ctx) }, net.ErrClosed},
		"Drain twice":         {func() error { return drained.g.Drain(ctx) }, net.ErrClosed},
		"Close twice":         {func() error { return closed.g.Close() }, net.ErrClosed},
		"Close after Drain":   {func() error { return drained.g.Close() }, net.ErrClosed},
		"Serve, closed":       {func() error { return closed.g.Serve(answer) }, net.ErrClosed},
		"Serve, drained":      {func() error { return drained.g.Serve(answer) }, net.ErrClosed},
		"listener, closed":    {func() error { return closed.g.Listeners()[0].Close() }, net.ErrClosed},
		"Accept, closed":      {func() error { _, err := closed.g.Listeners()[0].Accept(); return err }, net.ErrClosed},
		"DrainListener, nil":  {func() error { return group.DrainListener(ctx, nil) }, errors.ErrUnsupported},
		"DrainListener, unix": {func() error { l := none(); defer l.Close(); return group.DrainListener(ctx, l) }, errors.ErrUnsupported},
		"DrainListener, own":  {func() error { return group.DrainListener(ctx, open.g.Listeners()[0]) }, errors.ErrUnsupported},
		"Drain, ctx done": {func() error {
			s := start(t, 2, "tcp4", "127.0.0.1:0")
			err := s.g.Drain(done)
			return errors.Join(err, <-s.done)
		}, context.Canceled},
		"DrainListener, done": {func() error {
			l, err := reuse.Config{PortLB: reuse.On}.Listen(ctx, "tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			return group.DrainListener(done, l)
		}, context.Canceled},
		"DrainListener twice": {func() error {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			require.ErrorContains(t, group.DrainListener(ctx, l), "no process has taken over")
			return group.DrainListener(ctx, l)
		}, net.ErrClosed},
	} {
		require.Error(t, tt.call(), name) // opens what the runtime keeps
		files, goroutines := openFiles(), runtime.NumGoroutine()
		for range 3 {
			err := tt.call()
			if want := (*net.AddrError)(nil); errors.As(tt.want, &want) {
				require.ErrorAs(t, err, &want, name)
				continue
			}
			require.ErrorIs(t, err, tt.want, name)
		}
		assert.Equal(t, files, openFiles(), name)
		assert.True(t, fewer(goroutines), "%s: %d goroutines, were %d", name, runtime.NumGoroutine(), goroutines)
	}
	assert.Equal(t, map[string]int{"\x01": 20}, who(t, open.g.Addr().String(), 20))
	assert.False(t, attached(t, open.g.Listeners()[0]))
	require.NoError(t, open.g.TakeOver(ctx, 0)) // and the lock is free
	require.NoError(t, open.g.TakeOver(ctx, 2))
	require.NoError(t, open.g.Close())
	require.NoError(t, <-open.done)
}

// Ends of groups at the same time: all return, one has done it.
func TestAtTheSameTime(t *testing.T) {
	for range 20 {
		s := start(t, 2, "tcp4", "127.0.0.1:0")
		next := start(t, 2, "tcp4", s.g.Addr().String())
		results := make(chan error, 5)
		go func() { results <- next.g.TakeOver(t.Context(), 0) }()
		go func() { results <- next.g.TakeOver(t.Context(), 0) }()
		go func() { results <- next.g.Drain(t.Context()) }()
		go func() { results <- next.g.Close() }()
		go func() { results <- next.g.Listeners()[0].Close() }()
		for range 5 {
			if err := <-results; err != nil && !errors.Is(err, net.ErrClosed) {
				assert.ErrorContains(t, err, "no process has taken over")
			}
		}
		require.ErrorIs(t, next.g.Close(), net.ErrClosed)
		if err := <-next.done; err != nil { // if a listener's Close was first
			assert.ErrorIs(t, err, net.ErrClosed)
		}
		assert.False(t, attached(t, s.g.Listeners()[0]))
		require.NoError(t, s.g.Close())
		require.NoError(t, <-s.done)
	}
}

// fewer waits until there are no more goroutines than that.
func fewer(n int) bool {
	for range 100_000 {
		if runtime.NumGoroutine() <= n {
			return true
		}
		runtime.Gosched()
	}
	return false
}

func openFiles() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(d)
}

// refuse is a process whose kernel refuses what its first argument says, with the
// errno of the second. It answers with the first promise that was not kept.
func refuse(args []string, _ *bufio.Scanner, out io.Writer) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	errno := syscall.Errno(n)
	ctx := context.Background()
	listen := func(address string) (*group.Group, chan error, error) {
		g, err := group.Config{Size: 2}.Listen(ctx, "tcp4", address)
		if err != nil {
			return nil, nil, err
		}
		done, serving := make(chan error, 1), make(chan struct{}, 2)
		go func() {
			done <- g.Serve(func(l net.Listener) error {
				serving <- struct{}{}
				return answer(l)
			})
		}()
		for range 2 { // their goroutines are counted below
			<-serving
		}
		return g, done, nil
	}
	old, oldDone, err := listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	address := old.Addr().String()
	g, done, err := listen(address)
	if err != nil {
		return err
	}
	if err := ask(address); err != nil {
		return err
	}
	if args[0] == "blind" { // as before 5.7, it is to be done without, or an error of Drain
		if err := testproc.Deny(errno, unix.SYS_SETSOCKOPT, testproc.Arg{Index: 2, Value: unix.SO_BINDTOIFINDEX}); err != nil {
			fmt.Fprintln(out, "skip:", err)
			return nil
		}
		if err := g.TakeOver(ctx, 0); err != nil {
			return err
		}
		forgiven := errno == unix.ENOPROTOOPT || errno == unix.EPERM
		err := errors.Join(old.Drain(ctx), <-oldDone)
		if forgiven != (err == nil) || !forgiven && !errors.Is(err, errno) {
			return fmt.Errorf("Drain: %w", err)
		}
		if err := group.Settled(ctx, g); err != nil {
			return err
		}
		if n := group.Spares(g); n != 0 && err == nil {
			return fmt.Errorf("%d spares remain", n)
		}
		if err := group.OpenAndClose(ctx, g); forgiven != (err == nil) || !forgiven && !errors.Is(err, errno) {
			return fmt.Errorf("a spare is closed in sight: %w", err)
		}
		if err := ask(address); err != nil {
			return err
		}
		fmt.Fprintln(out, "ok")
		return nil
	}

	files, goroutines := openFiles(), runtime.NumGoroutine()
	switch args[0] {
	case "attach":
		err = testproc.Deny(errno, unix.SYS_SETSOCKOPT, testproc.Arg{Index: 2, Value: unix.SO_ATTACH_REUSEPORT_CBPF})
	case "detach":
		err = testproc.Deny(errno, unix.SYS_SETSOCKOPT, testproc.Arg{Index: 2, Value: unix.SO_DETACH_REUSEPORT_BPF})
	case "spare": // when the program is attached already
		err = testproc.Deny(errno, unix.SYS_SETSOCKOPT, testproc.Arg{Index: 2, Value: unix.SO_REUSEPORT})
	case "sock_diag":
		err = testproc.Deny(errno, unix.SYS_SOCKET, testproc.Arg{Index: 0, Value: unix.AF_NETLINK})
	}
	if err != nil {
		fmt.Fprintln(out, "skip:", err)
		return nil
	}
	for range 3 {
		if err := g.TakeOver(ctx, 0); !errors.Is(err, errno) {
			return fmt.Errorf("TakeOver: %w", err)
		}
	}
	if n := openFiles(); n > files { // the last connection may have been open still
		return fmt.Errorf("%d descriptors, were %d", n, files)
	}
	if !fewer(goroutines) {
		return fmt.Errorf("%d goroutines, were %d", runtime.NumGoroutine(), goroutines)
	}
	if n := group.Spares(g); n != 0 {
		return fmt.Errorf("%d spares", n)
	}
	l, err := net.Listen("unix", group.LockName(g))
	if err != nil {
		return err
	}
	l.Close()
	if args[0] != "detach" {
		rc, err := g.Listeners()[0].(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		var derr error
		if err := rc.Control(func(fd uintptr) {
			derr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
		}); err != nil || derr != unix.ENOENT {
			return fmt.Errorf("a program is attached: %w", errors.Join(err, derr))
		}
	}
	for range 20 {
		if err := ask(address); err != nil {
			return err
		}
	}
	if err := old.Drain(ctx); err == nil || args[0] == "sock_diag" && !errors.Is(err, errno) {
		return fmt.Errorf("Drain: %w", err)
	}
	if err := g.Close(); err != nil {
		return err
	}
	if err := errors.Join(<-done, <-oldDone); err != nil {
		return err
	}
	fmt.Fprintln(out, "ok")
	return nil
}

// What the kernel refuses is found in the error, and nothing is left behind.
func TestRefused(t *testing.T) {
	testproc.NeedDeny(t)
	for _, what := range []string{"attach", "detach", "spare", "blind", "sock_diag"} {
		for _, errno := range []syscall.Errno{unix.EPERM, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOPROTOOPT} {
			t.Run(what+" "+unix.ErrnoName(errno), func(t *testing.T) {
				answer := testproc.Start(t, "refuse", what, strconv.Itoa(int(errno))).Receive()
				if len(answer) > 4 && answer[:4] == "skip" {
					t.Skip(answer)
				}
				assert.Equal(t, "ok", answer)
			})
		}
	}
}
