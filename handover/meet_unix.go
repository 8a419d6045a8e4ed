//go:build unix

package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// silence is how long a healthy process takes at most to say something.
const silence = 10 * time.Second

// meet finds the current process and receives its sockets, or finds that there is
// none and takes its place.
func (c Config) meet(ctx context.Context, id string) (*meeting, error) {
	place, err := c.findPlace()
	if err != nil {
		return nil, err
	}
	m := &meeting{}
	var refused time.Time // since when
	heard := time.Now()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", place.address)
		switch {
		case err == nil:
			l := &link{conn: conn.(*net.UnixConn), over: make(chan struct{})}
			attached, spoke, err := m.greet(ctx, place, l, id)
			if err != nil || attached {
				return m, err
			}
			m.vanished, refused = true, time.Time{}
			if spoke {
				heard = time.Now()
			} else if time.Since(heard) > silence {
				return nil, fmt.Errorf("%v ends each connection at once, perhaps as many processes wait already: %w", l.who, os.ErrDeadlineExceeded)
			}
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
			if refused.IsZero() {
				refused = time.Now()
			}
			m.rendezvous, err = place.claim(time.Since(refused))
			switch {
			case err == nil:
				return m, nil
			case !addressInUse(err) && !errors.Is(err, errLocked):
				return nil, err
			case place.abstract() && time.Since(refused) > time.Second:
				return nil, fmt.Errorf("%s is held by a process that does not listen there; set Dir to a folder that only this user can write: %w", place.address, err)
			}
		case errors.Is(err, syscall.EAGAIN), ctx.Err() != nil: // the queue is full, or pause returns false
		case errors.Is(err, syscall.EAFNOSUPPORT):
			return nil, fmt.Errorf("processes meet at a Unix socket, and the family AF_UNIX is not available: %w", err)
		case errors.Is(err, os.ErrPermission) && place.abstract():
			return nil, fmt.Errorf("this process may not connect to %s; set Dir: %w", place.address, err)
		default:
			return nil, err
		}
		switch {
		case !pause(ctx.Done(), 5*time.Millisecond):
			return nil, fmt.Errorf("waited for the process at %s: %w", place.address, ctx.Err())
		case time.Since(heard) > silence:
			return nil, fmt.Errorf("the process at %s accepts no connection: %w", place.address, os.ErrDeadlineExceeded)
		}
	}
}

// greet talks to the current process until that has sent its sockets. If attached is
// false without an error it has gone, perhaps without a word.
func (m *meeting) greet(ctx context.Context, place place, l *link, id string) (attached, spoke bool, err error) {
	defer func() {
		if !attached {
			closeSockets(m.sockets)
			m.rendezvous.close(false)
			m.sockets, m.rendezvous = nil, nil
			l.conn.Close() // last: it says that the sockets are closed
		}
	}()
	if l.who, err = place.check(l.conn); err != nil {
		return false, false, err
	}
	awaited := l.who
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) }) // an error says that it is closed
	defer stop()
	in := &receiver{conn: l.conn}
	defer in.close()
	err = l.send(hello(id, l.conn))
	for err == nil {
		if err = l.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			break
		}
		if err = ctx.Err(); err != nil { // or the deadline is in the past from now on
			break
		}
		var got message
		if got, err = readMessage(in); err != nil {
			break
		}
		spoke = true
		switch got.Type {
		case typeWait, typeEnding:
			awaited = peer{pid: got.PID, uid: -1}
			if got.PID == l.who.pid {
				awaited = l.who
			}
		case typeHello:
			err = l.checkHello(got, place)
		case typeRendezvous, typeLock, typeSocket:
			err = m.receive(got, in, place)
		case typeEnd:
			if !stop() {
				return false, true, waited(awaited, ctx.Err())
			}
			m.link = l
			for _, s := range m.sockets {
				l.sockets = append(l.sockets, s.String())
			}
			return true, true, l.conn.SetDeadline(time.Time{})
		}
		if err != nil {
			return false, true, err
		}
	}
	switch {
	case ctx.Err() != nil:
		err = waited(awaited, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = waited(awaited, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		err = nil
		if m.rendezvous != nil && (place.abstract() || m.rendezvous.lock != nil) {
			// It has died in the middle. What is here is this process's now.
			l.conn.Close()
			m.vanished, attached = true, true
		}
	case !errors.Is(err, syscall.EMFILE):
		err = fmt.Errorf("%v does not speak this protocol: %w", l.who, err)
	}
	return attached, spoke, err
}

// correct replaces the id by the one that the process has sent, where the kernel tells
// none, or that of a thread (gVisor).
func (p *peer) correct(sent int) {
	if p.pid == 0 && p.uid < 0 || p.pid != sent && isThread(sent, p.pid) {
		p.pid = sent
	}
}

func (l *link) checkHello(m message, place place) error {
	l.process = m.Process
	l.who.correct(m.PID)
	if err := m.checkVersions(); err != nil {
		return fmt.Errorf("%v: %w", l.who, err)
	}
	mine := netns(l.conn)
	kind, _, _ := strings.Cut(mine, " ")
	if kind != "" && strings.HasPrefix(m.NetNS, kind+" ") && mine != m.NetNS {
		return fmt.Errorf("%v at %s is in another network namespace (%s) than this process (%s)", l.who, place.address, m.NetNS, mine)
	}
	return nil
}

// receive takes the descriptor that came with a message.
func (m *meeting) receive(got message, in *receiver, place place) error {
	fd, err := in.take()
	if err != nil {
		return err
	}
	if got.Type == typeLock && m.rendezvous != nil {
		m.rendezvous.lock = os.NewFile(uintptr(fd), "lock")
		return nil
	}
	s, err := adopt(fd)
	if l, ok := s.(*net.UnixListener); ok && got.Type == typeRendezvous && m.rendezvous == nil {
		// fd stays open: it is the spare, and its number is lower than those of the
		// sockets that follow.
		m.rendezvous = &rendezvous{place: place, listener: l, spare: os.NewFile(uintptr(fd), "spare")}
		return nil
	}
	unix.Close(fd)
	if err != nil {
		return err
	}
	_, isPacket := s.(net.PacketConn)
	m.sockets = append(m.sockets, &socket{
		request:   request{got.Network, got.Address, isPacket},
		netSocket: s,
		id:        got.ID,
		parent:    got.Files,
		borrowed:  true,
	})
	return nil
}

func hello(id string, sc syscall.Conn) message {
	return message{Type: typeHello, Versions: [2]int{oldestVersion, newestVersion}, Process: id, PID: os.Getpid(), NetNS: netns(sc)}
}

func addressInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
