package group_test

import (
	"strconv"
	"strings"
	"syscall"

	"example.com/reuse/internal/testproc"
)

func systemChildren() map[string]testproc.Child { return nil }

// oldestGets is so before FreeBSD 14.
func oldestGets() bool {
	release, err := syscall.Sysctl("kern.osrelease")
	major, _, _ := strings.Cut(release, ".")
	n, convErr := strconv.Atoi(major)
	return err == nil && convErr == nil && n < 14
}
