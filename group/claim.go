//go:build darwin || freebsd || netbsd || openbsd

package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The groups of a user are in order, and one that has taken over claims so, in
// files of a directory that is the user's alone. The system frees their locks when
// a process dies, however it does. Processes with different temporary directories
// ($TMPDIR) do not see each other's claims, and Drain fails; so it does if another user
// made a directory of that name first. Those in jails and routing domains of their own
// should not share one.

// directory returns the directory, and makes it if need be.
func directory() (string, error) {
	dir := filepath.Join(os.TempDir(), directoryName())
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is not a directory of this user alone", dir)
	}
	return dir, nil
}

func directoryName() string { return fmt.Sprintf("reuse-group-%d", os.Geteuid()) }

// A lock is held while the listeners of a group open.
type lock struct {
	file  *os.File
	order uint64
}

// lockOrder waits until no other process of this user opens a group, or until ctx
// ends, and takes the next place in the order.
func lockOrder(ctx context.Context) (*lock, error) {
	dir, err := directory()
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "order"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	l := &lock{file: file}
	if err := l.acquire(ctx); err != nil {
		file.Close()
		return nil, err
	}
	return l, nil
}

func (l *lock) acquire(ctx context.Context) error {
	for {
		err := flock(l.file, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	text := make([]byte, 20)
	n, err := l.file.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	last, err := strconv.ParseUint(string(text[:n]), 10, 64)
	if n > 0 && err != nil {
		return fmt.Errorf("%s holds no number: %w", l.file.Name(), err)
	}
	// The clock, so that a directory that was lost does not begin again at 1.
	l.order = max(last+1, uint64(time.Now().UnixNano()))
	_, err = l.file.WriteAt(strconv.AppendUint(nil, l.order, 10), 0)
	return err
}

// release frees the lock. A nil lock is free.
func (l *lock) release() {
	if l != nil {
		_ = flock(l.file, unix.LOCK_UN) // see endClaim; Close frees it, too
		l.file.Close()
	}
}

// newClaim claims that the group with a place in the order gets new connections,
// until the file is closed. What dead processes have left is removed, of other
// addresses, too.
func newClaim(ctx context.Context, key string, order uint64) (*os.File, error) {
	held, err := lockOrder(ctx)
	if err != nil {
		return nil, err
	}
	defer held.release()
	dir := filepath.Dir(held.file.Name())
	err = claims(dir, func(name, _ string, _ uint64, live bool) {
		if !live {
			os.Remove(name)
		}
	})
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, claimName(key, order)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(file, unix.LOCK_EX); err != nil { // held by others for an instant
		return nil, errors.Join(err, endClaim(file))
	}
	return file, nil
}

// endClaim frees the lock, which is what counts, also if somebody has removed the
// file. A child between fork and exec has a copy of the descriptor; closing ours would
// leave it locked for so long.
func endClaim(file *os.File) error {
	if file == nil {
		return nil
	}
	_ = os.Remove(file.Name())
	return errors.Join(flock(file, unix.LOCK_UN), file.Close())
}

// isThere tells whether others see a claim.
func isThere(file *os.File) bool {
	if file == nil {
		return false
	}
	mine, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(file.Name())
	return err == nil && os.SameFile(mine, there)
}

// claimed returns nil if a live group later in the order has claimed an address.
func claimed(key string, order uint64) error {
	dir, err := directory()
	if err != nil {
		return err
	}
	found := errNotSteered
	err = claims(dir, func(_, of string, other uint64, live bool) {
		if live && of == key && other > order {
			found = nil
		}
	})
	return errors.Join(err, found)
}

func claimName(key string, order uint64) string { return fmt.Sprintf("%s %d", key, order) }

// claims calls f for each claim on any address.
func claims(dir string, f func(name, key string, order uint64, live bool)) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		words := strings.Split(e.Name(), " ")
		if len(words) != 4 || !e.Type().IsRegular() {
			continue // no claim
		}
		order, err := strconv.ParseUint(words[3], 10, 64)
		if err != nil {
			continue
		}
		name := filepath.Join(dir, e.Name())
		file, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return err
		}
		err = flock(file, unix.LOCK_SH|unix.LOCK_NB)
		file.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		f(name, strings.Join(words[:3], " "), order, err != nil)
	}
	return nil
}

func flock(file *os.File, how int) error {
	rc, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) {
		for {
			if ferr = unix.Flock(int(fd), how); ferr != unix.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	return os.NewSyscallError("flock", ferr)
}
