package inuse

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Which process has a socket is written nowhere but in /proc/PID/fd, where each
// open socket is a link to "socket:[INODE]". All links of all processes may have to
// be read, so this is done with the system calls themselves: the names are used
// where getdents put them, and nothing is allocated for what is not looked for. The
// search ends when all sockets are found, and begins where they are likely: with the
// low descriptors, which a server's listeners have, of the sockets' users. Among
// 20,000 other sockets it takes 5 ms for a listener, and 110 if its link is the last.

// An owner finder fills in who has which socket.
type finder struct {
	list   []Holder
	inodes []uint32 // of list
	order  []int    // indexes of list whose inode is looked for, by inode
	left   int      // of them, those not found yet
	uids   []uint32 // of them

	err   error  // which ends the search
	names []byte // directory entries of a process
	link  [64]byte
	path  [32]byte
}

// early is how much of a process's descriptors is read first: about 80.
const early = 2 << 10

// owners fills in PID and Command of the holders with these inodes, as far as this
// user may see.
func owners(ctx context.Context, list []Holder, inodes []uint32) error {
	f := finder{list: list, inodes: inodes}
	for i, inode := range inodes {
		if inode == 0 {
			continue
		}
		f.order = append(f.order, i)
		if uid := uint32(list[i].UID); !slices.Contains(f.uids, uid) {
			f.uids = append(f.uids, uid)
		}
	}
	f.left = len(f.order)
	if f.left == 0 {
		return nil
	}
	slices.SortStableFunc(f.order, func(a, b int) int { return int(int64(inodes[a]) - int64(inodes[b])) })
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if starved(err) {
		return os.NewSyscallError("open /proc", err)
	} else if err != nil {
		return nil // no process can be seen
	}
	defer unix.Close(proc)
	f.names = make([]byte, 32<<10)
	pids := make([]byte, 8<<10)
	for _, pass := range []pass{{true, true}, {true, false}, {false, true}, {false, false}} {
		if _, err := unix.Seek(proc, 0, unix.SEEK_SET); err != nil {
			return os.NewSyscallError("lseek /proc", err)
		}
		err := readDir(proc, pids, false, func(name []byte) bool {
			if isNumber(name) {
				f.process(proc, name, pass)
			}
			return f.left > 0 && f.err == nil && ctx.Err() == nil
		})
		if err := cmp.Or(err, f.err, ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// A pass over all processes looks at some of them, and of those at some descriptors.
type pass struct {
	early  bool // the first descriptors only
	theirs bool // processes of the sockets' users; otherwise those of other users
}

// process looks through one process. One that is gone, or may not be looked at, has
// nothing to show.
func (f *finder) process(proc int, name []byte, pass pass) {
	path := append(append(f.path[:0], name...), "/fd\x00"...)
	fds, err := openAt(proc, path, unix.O_DIRECTORY)
	if err != nil {
		if starved(err) {
			f.err = os.NewSyscallError("open /proc", err)
		}
		return
	}
	defer unix.Close(fds)
	var st unix.Stat_t
	if unix.Fstat(fds, &st) != nil || slices.Contains(f.uids, st.Uid) != pass.theirs {
		return
	}
	pid, _ := strconv.Atoi(string(name))
	command, known := "", false
	names := f.names
	if pass.early {
		names = names[:early]
	}
	_ = readDir(fds, names, pass.early, func(name []byte) bool {
		n, err := readLinkAt(fds, name[:len(name)+1], f.link[:])
		if err != nil {
			return true
		}
		inode, ok := parseLink(f.link[:n])
		if !ok {
			return true
		}
		for i := f.find(inode); i < len(f.order) && f.inodes[f.order[i]] == inode; i++ {
			h := &f.list[f.order[i]]
			if h.PID != 0 {
				continue
			}
			if !known { // relative to fds: not another process's that got the PID
				command, known = commandOf(fds), true
			}
			h.PID, h.Command = pid, command
			f.left--
		}
		return f.left > 0
	})
}

// starved tells whether the system lacks what an open needs.
func starved(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// find returns the place of the first holder with an inode in f.order.
func (f *finder) find(inode uint32) int {
	i, _ := slices.BinarySearchFunc(f.order, inode, func(a int, inode uint32) int { return int(int64(f.inodes[a]) - int64(inode)) })
	return i
}

// commandOf returns the name of a process, by its fd directory.
func commandOf(fds int) string {
	c, err := unix.Openat(fds, "../comm", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(c)
	var b [64]byte
	n, err := unix.Read(c, b[:])
	if err != nil || n < 0 {
		return ""
	}
	return string(bytes.TrimSuffix(b[:n], []byte("\n")))
}

// parseLink returns the inode of a link "socket:[INODE]".
func parseLink(link []byte) (inode uint32, ok bool) {
	digits, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok {
		return 0, false
	}
	digits, ok = bytes.CutSuffix(digits, []byte("]"))
	if !ok || len(digits) == 0 || len(digits) > 10 {
		return 0, false
	}
	var n uint64
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + uint64(d-'0')
	}
	return uint32(n), n == uint64(uint32(n))
}

func isNumber(name []byte) bool {
	for _, c := range name {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(name) > 0
}

// readDir calls yield with each name in a directory, or with once those that fit in
// buf, until it returns false. Behind the name, in the same memory, there is a NUL.
func readDir(dir int, buf []byte, once bool, yield func(name []byte) bool) error {
	for {
		n, err := unix.Getdents(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return os.NewSyscallError("getdents", err)
		}
		for rest := buf[:n]; len(rest) > 0; {
			var name []byte
			if name, rest, err = nextEntry(rest); err != nil {
				return err
			}
			if !yield(name) {
				return nil
			}
		}
		if once {
			return nil
		}
	}
}

var errEntry = errors.New("directory entry cut short")

// nextEntry splits the first struct linux_dirent64 off.
func nextEntry(b []byte) (name, rest []byte, err error) {
	const header = 19 // d_ino, d_off, d_reclen, d_type
	if len(b) <= header {
		return nil, nil, errEntry
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size <= header || size > len(b) {
		return nil, nil, errEntry
	}
	end := bytes.IndexByte(b[header:size], 0)
	if end < 0 {
		return nil, nil, errEntry
	}
	return b[header : header+end], b[size:], nil
}

// openAt is openat for reading, of a path that ends in a NUL.
func openAt(dir int, path []byte, flags int) (int, error) {
	fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&path[0])), uintptr(unix.O_RDONLY|unix.O_CLOEXEC|flags), 0, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// readLinkAt is readlinkat, of a path that ends in a NUL.
func readLinkAt(dir int, path, buf []byte) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
