package group

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A lock keeps two processes of one user from changing the members of one address
// at a time. It is a listening stream socket in the abstract unix namespace, so it
// is of this network namespace, needs no file, and is gone with its process. Who
// connects is told what the holder steers to, and reads on until the lock is free.
//
// Anybody may bind the name first. Then acquire waits until its context ends.
type lock struct {
	l *net.UnixListener

	mu      sync.Mutex
	status  string
	waiting []net.Conn
	done    chan struct{}
}

// lockName is the name of an address's lock.
func lockName(key string) string {
	return fmt.Sprintf("@example.com/reuse/group %s %d", key, os.Geteuid())
}

// lockAddress holds the lock while the group's listeners open.
func (g *Group) lockAddress(ctx context.Context, at *net.TCPAddr) (*lock, error) {
	return acquire(ctx, addressKey(g.network, at))
}

// acquire waits until the lock is free, or ctx ends.
func acquire(ctx context.Context, key string) (*lock, error) {
	name := lockName(key)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err == nil {
			k := &lock{l: l, status: "listening", done: make(chan struct{})}
			go k.serve()
			return k, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
		if err := await(ctx, name); err != nil {
			return nil, fmt.Errorf("group: waited for another process that holds this address: %w", err)
		}
	}
}

// await returns when the lock may be free.
func await(ctx context.Context, name string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", name)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { c.Close() })
		for err == nil {
			_, err = c.Read(make([]byte, 1<<10))
		}
		stop()
		c.Close()
	}
	// Free, or somebody's who does not listen or hangs up: not too often, then.
	return pause(ctx, 2*time.Millisecond)
}

// serve answers who connects.
func (k *lock) serve() {
	defer close(k.done)
	for {
		c, err := k.l.Accept()
		if isClosed(err) {
			return
		}
		if err != nil { // too many open files, say
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err := ownPeer(c.(*net.UnixConn)); err != nil {
			c.Close()
			continue
		}
		k.mu.Lock()
		k.waiting = append(k.waiting, c)
		status := k.status
		k.mu.Unlock()
		_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // if that fails, so does what follows
		fmt.Fprintln(c, status)
	}
}

// steers lets who asks know which sockets new connections go to.
func (k *lock) steers(cookies []uint64) {
	words := []string{"steering"}
	for _, c := range cookies {
		words = append(words, strconv.FormatUint(c, 16))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status = strings.Join(words, " ")
}

// release frees the lock. A nil lock is free.
func (k *lock) release() {
	if k == nil {
		return
	}
	k.l.Close()
	<-k.done
	for _, c := range k.waiting {
		c.Close()
	}
}

// steering asks the holder of a lock where new connections go to. Only a process of
// this user is believed.
func steering(ctx context.Context, key string) (cookies []uint64, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", lockName(key))
	if errors.Is(err, syscall.ECONNREFUSED) { // there is no lock
		return nil, errNotSteered
	}
	if err != nil {
		return nil, fmt.Errorf("who has taken over cannot be asked: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := ownPeer(c.(*net.UnixConn)); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return nil, errNotSteered
	}
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "steering" {
		return nil, errNotSteered
	}
	for _, w := range words[1:] {
		cookie, err := strconv.ParseUint(w, 16, 64)
		if err != nil {
			return nil, errNotSteered
		}
		cookies = append(cookies, cookie)
	}
	return cookies, nil
}

// ownPeer returns an error if the other end is another user's.
func ownPeer(c *net.UnixConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if cerr := rc.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("group: user %d has the lock of this address", peer.Uid)
	}
	return nil
}

// addressKey is the key of the address that Listen binds for a network.
func addressKey(network string, at *net.TCPAddr) string {
	ip := at.IP
	if network == "tcp" && (ip == nil || ip.IsUnspecified()) && dualStack() {
		return key(net.IPv6unspecified, "", at.Port, true)
	}
	if ip == nil && network == "tcp6" {
		ip = net.IPv6unspecified
	} else if ip == nil {
		ip = net.IPv4zero
	}
	return key(ip, at.Zone, at.Port, false)
}

// dualStack tells whether a wildcard listener of network "tcp" is one of both
// families, as package net decides it.
func dualStack() bool {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return true
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).IP.To4() == nil
}
