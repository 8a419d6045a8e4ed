package inuse

import "testing"

// No line of /proc/net, and no release, makes a parser panic or return a socket without
// an address.
func FuzzProc(f *testing.F) {
	f.Add("   0: 0100007F:9BB7 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 233371 2")
	f.Add("   5: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0        6 1")
	f.Add("6.1.0-18-amd64")
	f.Fuzz(func(t *testing.T, line string) {
		if s, ok := parseLine(line); ok && (!s.Local.IsValid() || !s.Remote.IsValid() || s.State == 0) {
			t.Fatalf("%q is read as %+v", line, s)
		}
		olderThan68(line)
	})
}
