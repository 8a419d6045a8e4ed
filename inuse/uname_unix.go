//go:build unix

package inuse

import "golang.org/x/sys/unix"

// uname returns what package semantics tells versions of a system by.
func uname() (release, version string) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "", ""
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:])
}
