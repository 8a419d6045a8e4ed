// Package sockopt reads and writes one integer option of a socket, and classifies the
// error. Where a system has no socket options, every call fails as unsupported.
//
// Get and Set return the system's errno inside an [os.SyscallError].
package sockopt

import "syscall"

// Control calls do with the descriptor of rc. It returns the error of do, or that of
// rc.Control if do is not called.
func Control(rc syscall.RawConn, do func(fd uintptr) error) error {
	var err error
	if controlErr := rc.Control(func(fd uintptr) { err = do(fd) }); controlErr != nil {
		return controlErr
	}
	return err
}
