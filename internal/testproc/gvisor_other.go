//go:build !linux

package testproc

// OnGVisor is false: gVisor's GOOS is linux.
func OnGVisor() bool { return false }
