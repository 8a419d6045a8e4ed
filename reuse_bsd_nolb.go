//go:build darwin || netbsd || openbsd

package reuse

// No option spreads connections here: one socket gets them all.
const reuseportLB = 0
