//go:build !linux

package sockopt

// BoundToDevice returns false. Whether a device matters to a bind is unverified here.
func BoundToDevice(uintptr) (bool, error) { return false, nil }
