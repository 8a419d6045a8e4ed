//go:build !unix && !windows

package reuse

// js, wasip1 and plan9: package net never calls a Control function for a listener, and
// on js and wasip1 a dial with a Control function fails. No option can be set.
func (o Option) sockOption() sockOption {
	return sockOption{reason: noOptions}
}

const udpBindsFirst = false

// errTupleInUse is an error that nothing returns.
const errTupleInUse = unsupportedReason("")
