// Package sockopt reads and writes one integer option of a socket, and sorts
// what the system answers.
//
// Get and Set return the system's errno inside an [os.SyscallError].
package sockopt
