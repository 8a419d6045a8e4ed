package semantics_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// What Wine 10 does is no evidence of Windows: a listening socket refuses nearly
// everything there, because the Linux below does. The rows are kept to know by
// how much a test under Wine may be trusted. It is never laxer over one family;
// over two it is.
func TestWineIsNotWindows(t *testing.T) {
	t.Parallel()
	windows, err := semantics.Find("windows")
	require.NoError(t, err)
	rows, want := pairs(t, "wine-10.txt")
	assert.Equal(t, 576, want)
	assert.Len(t, rows, 576)
	type counts struct{ same, errno, stricter, laxer, unknown int }
	got := map[string]counts{}
	for _, r := range rows {
		key := strings.Join(strings.Fields(r.names)[:2], " ")
		if strings.Contains(r.names, "6") && !strings.Contains(r.names, "specific2") {
			key += " IPv6"
		}
		c := got[key]
		rule := windows.Second(r.first, r.second)
		refused := r.outcome != '.'
		switch {
		case rule.Known.How == semantics.Unknown:
			c.unknown++
		case refused && rule.Err == "":
			c.stricter++
		case !refused && rule.Err != "":
			c.laxer++
		case r.check(windows) == "":
			c.same++
		case refused && refusal(r.outcome) == rule.String():
			c.same++ // known less well than measured, and the same
		case refused:
			c.errno++
		default:
			c.same++
		}
		got[key] = c
	}
	assert.Equal(t, map[string]counts{
		"tcp bound":          {same: 85, errno: 2, unknown: 9},
		"tcp listening":      {same: 71, errno: 2, stricter: 14, unknown: 9},
		"udp bound":          {same: 75, errno: 2, stricter: 10, unknown: 9},
		"tcp bound IPv6":     {same: 85, errno: 3, laxer: 8},
		"tcp listening IPv6": {same: 76, errno: 3, stricter: 17},
		"udp bound IPv6":     {same: 80, errno: 4, stricter: 12},
	}, got)
}

// refusal is what a letter says of Windows.
func refusal(letter byte) string {
	return map[byte]string{
		'U': "bind:WSAEADDRINUSE", 'A': "bind:WSAEACCES",
		'i': "first:setsockopt:WSAEINVAL", 'I': "setsockopt:WSAEINVAL",
	}[letter]
}
