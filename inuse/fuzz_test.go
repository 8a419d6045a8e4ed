package inuse

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"unicode"
)

// No address or name makes anything panic, and no name gets to a terminal as it is.
func FuzzText(f *testing.F) {
	f.Add("tcp", "127.0.0.1:80", "nginx")
	f.Add("udp6", "[fe80::1%eth0]:53", "\x1b[2J")
	f.Add("tcp", ":8080", "a\nb\tc")
	f.Add("unix", "@a", "\x9b31m\x80\xff")
	f.Add("", "*", "\u202e")
	f.Fuzz(func(t *testing.T, network, address, name string) {
		host, _, err := net.SplitHostPort(address)
		_, ipErr := netip.ParseAddr(host)
		if err != nil || host == "" || ipErr == nil { // nothing to look up
			target, err := resolve(t.Context(), network, address)
			if err == nil && !target.overlaps(target.local.Addr(), target.v6only) {
				t.Fatalf("%q %q does not overlap itself", network, address)
			}
		}
		h := Holder{Network: network, Local: netip.MustParseAddrPort("127.0.0.1:80"), Path: address, State: name, UID: -1}
		h.Command, h.PID = name, 4211
		r := Report{Network: network, Address: address, Holders: []Holder{h}, Reason: h.String(), Advice: []string{printable(name)}}
		text := r.String()
		for _, c := range text {
			if c != '\n' && c != unicode.ReplacementChar && !unicode.IsGraphic(c) {
				t.Fatalf("%q holds %U", text, c)
			}
		}
		if n := strings.Count(text, "\n4211"); n > 0 {
			t.Fatalf("%d lines begin with a PID: %q", n, text)
		}
	})
}
