package inuse

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Nothing that the kernel, or what answers for it, might say makes a parser do
// anything but fail.
func FuzzKernel(f *testing.F) {
	f.Add(append(inetMessage(unix.AF_INET, netip.MustParseAddr("127.0.0.1")), 5, 0, attrV6Only, 0, 1, 0, 0, 0))
	f.Add(inetMessage(unix.AF_INET6, netip.MustParseAddr("fe80::1")))
	entry := make([]byte, 24)
	binary.NativeEndian.PutUint16(entry[16:], 24)
	copy(entry[19:], "12")
	f.Add(append(entry, entry...))
	f.Add([]byte("socket:[4294967295]"))
	f.Add([]byte("32768\t60999\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s socket
		if s.parse(b) == nil && !s.local.Addr().IsValid() {
			t.Fatal("a socket without an address")
		}
		for rest := b; len(rest) > 0; {
			name, next, err := nextEntry(rest)
			if err != nil {
				break
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			if name[:len(name)+1][len(name)] != 0 {
				t.Fatal("no NUL behind the name")
			}
			rest = next
		}
		if inode, ok := parseLink(b); ok && !strings.Contains(string(b), ":[") {
			t.Fatalf("%q is no link to %d", b, inode)
		}
		if list, err := parseNumbers(b, 2); err == nil && len(list) != 2 {
			t.Fatal(list)
		}
		olderThan(string(b), 6, 8)
	})
}
