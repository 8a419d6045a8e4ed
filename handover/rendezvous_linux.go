package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const hasAbstract = true

// check returns the process at the other end. At an abstract name, which every user
// can bind and connect to, it must be of this user; a folder has been checked.
func (p place) check(conn *net.UnixConn) (peer, error) {
	who := peer{uid: -1}
	var cred *unix.Ucred
	err := control(conn, func(fd int) (err error) {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return os.NewSyscallError("getsockopt", err)
	})
	if err == nil {
		who = peer{pid: int(cred.Pid), uid: int(cred.Uid)}
	}
	if !p.abstract() {
		return who, nil
	}
	if err != nil {
		return who, err
	}
	euid := os.Geteuid()
	if who.uid != euid {
		return who, fmt.Errorf("%w: %s is held by uid %d (pid %d), not by uid %d; set Dir to a folder that only this user can write", os.ErrPermission, p.address, who.uid, who.pid, euid)
	}
	if who.uid == 65534 && p.unmapped != nil {
		return who, fmt.Errorf("%w: %s is held by uid %d (pid %d), as which every user outside this user namespace appears; set Dir to a folder that only this user can write: %w", os.ErrPermission, p.address, who.uid, who.pid, p.unmapped)
	}
	return who, nil
}

// checkAllMapped fails unless every user has a number in this user namespace.
func checkAllMapped() error {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295" {
		err = errors.New("not every user has a number here")
	}
	return err
}

// netns names the network namespace, or returns "" where that is unknown.
func netns(c syscall.Conn) string {
	var cookie uint64
	err := control(c, func(fd int) (err error) { // from Linux 5.14
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err == nil && cookie != 0 {
		return "cookie " + strconv.FormatUint(cookie, 10)
	}
	if info, err := os.Stat("/proc/self/ns/net"); err == nil {
		return "inode " + strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10)
	}
	return ""
}

// isThread tells whether a process has a thread of that id.
func isThread(pid, id int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(id))
	return err == nil
}

// stateOf returns "," and what a process that does not answer does, if it is visible.
func stateOf(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	switch state, _, _ := strings.Cut(after, " "); state {
	case "T", "t":
		return ", stopped"
	case "Z", "X":
		return ", dead"
	case "D":
		return ", in an uninterruptible wait"
	}
	return ", running"
}

// giveUp ends the wait for the previous process's agreement. Its later send fails, and
// what it has sent stays readable (Linux 6.18). The connection stays open, which tells it that this
// process still holds the sockets.
func (l *link) giveUp() { _ = l.conn.CloseRead() }

// staleAfter is how long a Unix listener's file must refuse to be removed. A socket that
// is bound and does not listen yet refuses also.
const staleAfter = 100 * time.Millisecond
