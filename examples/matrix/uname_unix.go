//go:build unix && !android && !ios

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// uname returns the system's release and version.
func uname() (release, version string, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), nil
}

// impostor would name another system that runs the programs of this one.
func impostor() string { return "" }
