//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	farHost  = "10.9.0.2"
	farDelay = 100 * time.Millisecond // one way
)

// setFar makes the link, sets the shape's sysctl and reads its counter.
func (s *soak) setFar() (undo func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("distant clients need root")
	}
	name, value, _ := strings.Cut(s.sysctl, "=")
	path, old := filepath.Join("/proc/sys/net", name), []byte(nil)
	if name != "" {
		if old, err = os.ReadFile(path); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return nil, err
		}
	}
	before := map[string]int{}
	for name := range strings.FieldsSeq(s.counters) {
		before[name] = counter(name)
	}
	closeLink, err := link()
	if err != nil {
		return nil, err
	}
	return func() {
		closeLink()
		for name, n := range before {
			s.notes += fmt.Sprintf("  %s %d\n", name, counter(name)-n)
		}
		if name != "" {
			_ = os.WriteFile(path, bytes.TrimSpace(old), 0)
		}
	}, nil
}

// fill stops a process until its queue is full, and on into its hand-over.
func (s *soak) fill(p *process) error {
	if err := p.freeze(); err != nil {
		return err
	}
	time.Sleep(20 * farDelay)
	time.AfterFunc(farDelay, func() { _ = syscall.Kill(p.pid, syscall.SIGCONT) })
	return nil
}

// counter reads a counter of this network namespace; 0 if there is none of that name.
func counter(name string) (n int) {
	text, _ := os.ReadFile("/proc/self/net/netstat")
	lines := strings.Split(string(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 { // names, then values
		values := strings.Fields(lines[i+1])
		for k, word := range strings.Fields(lines[i]) {
			if word == name {
				_, _ = fmt.Sscan(values[k], &n)
			}
		}
	}
	return n
}

type packet struct {
	due  time.Time
	data []byte
}

// link makes farHost another name of this host's 10.9.0.1, some time away in each
// direction. A tun device gets the packets. With source and destination exchanged,
// which leaves the checksums as they are, they come back.
func link() (closeLink func(), err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/net/tun", err)
	}
	if err := configure(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	tun := os.NewFile(uintptr(fd), "tun") // which waits for packets from now on
	under, done := make(chan packet, 1<<16), make(chan struct{})
	go func() {
		defer close(under)
		for buf := make([]byte, 1<<16); ; {
			n, err := tun.Read(buf)
			if err != nil {
				return // closed
			}
			if n < 20 || buf[0]>>4 != 4 {
				continue
			}
			data := bytes.Clone(buf[:n])
			copy(data[12:16], buf[16:20])
			copy(data[16:20], buf[12:16])
			under <- packet{time.Now().Add(farDelay), data}
		}
	}()
	go func() {
		defer close(done)
		for p := range under {
			time.Sleep(time.Until(p.due))
			_, _ = tun.Write(p.data)
		}
	}()
	return func() { tun.Close(); <-done }, nil
}

// configure gives a tun device its name and address, and sets it up.
func configure(fd int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	for _, step := range []struct {
		fd    int
		what  uint
		value func(*unix.Ifreq)
	}{
		{fd, unix.TUNSETIFF, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI) }},
		{s, unix.SIOCSIFADDR, func(r *unix.Ifreq) { err = r.SetInet4Addr([]byte{10, 9, 0, 1}) }},
		{s, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) { err = r.SetInet4Addr([]byte{255, 255, 255, 0}) }},
		{s, unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) { r.SetUint32(10_000) }}, // packets may wait
		{s, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP) }},
	} {
		r, e := unix.NewIfreq("far")
		if e != nil {
			return e
		}
		step.value(r)
		if err = errors.Join(err, unix.IoctlIfreq(step.fd, step.what, r)); err != nil {
			return os.NewSyscallError("ioctl", err)
		}
	}
	return nil
}
