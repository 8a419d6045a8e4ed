//go:build !unix

package semantics

import "runtime"

// Running returns the running system, without a release.
func Running() (s System, release string, err error) {
	s, err = On(runtime.GOOS, "", "")
	return s, "", err
}
