package group_test

import (
	"maps"

	"example.com/reuse/internal/testproc"
)

// systemChildren are the children that only this system's tests have.
func systemChildren() map[string]testproc.Child {
	children := maps.Clone(accidentChildren)
	maps.Copy(children, packetChildren)
	return children
}

// oldestGets tells whether the oldest listener on a wildcard gets new connections.
func oldestGets() bool { return false }
