//go:build unix

package semantics

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Running returns the running system, and its release as uname gives it.
func Running() (s System, release string, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return System{}, "", os.NewSyscallError("uname", err)
	}
	release = unix.ByteSliceToString(u.Release[:])
	s, err = On(runtime.GOOS, release, unix.ByteSliceToString(u.Version[:]))
	return s, release, err
}
