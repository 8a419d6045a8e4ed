//go:build !unix && !windows

package reuse

// js, wasip1 and plan9: package net never calls a Control function for a
// listener, and on js and wasip1 a dial with one fails. Nothing can be set.
func table(o Option) entry {
	return entry{why: "there are no socket options here"}
}

const udpBindsFirst = false

// errTupleInUse is an error that nothing returns.
const errTupleInUse = unsupportedReason("")
