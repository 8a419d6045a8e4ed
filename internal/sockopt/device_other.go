//go:build !linux

package sockopt

// BoundToDevice returns false: whether a device matters to a bind here is not known.
func BoundToDevice(uintptr) (bool, error) { return false, nil }
