//go:build aix || darwin || netbsd || openbsd

package reuse

// No option spreads connections here.
const reuseportLB = 0
