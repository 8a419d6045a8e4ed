//go:build !unix

package semantics

import "runtime"

// Running returns the running system, without a release. Go runs on no Windows whose rules
// are those of Windows 2000.
func Running() (s System, release string, err error) {
	s, err = On(runtime.GOOS, "", "")
	return s, "", err
}
