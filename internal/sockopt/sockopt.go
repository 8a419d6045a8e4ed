// Package sockopt reads and writes one integer option of a socket, and sorts
// what the system answers. It is for package reuse, which knows what the options mean;
// where there are no socket options, everything fails as unsupported.
//
// Get and Set return the system's errno inside an [os.SyscallError].
package sockopt
