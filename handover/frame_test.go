package handover

import (
	"bytes"
	_ "embed"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

//go:embed testdata/frames.golden
var golden []byte

// Processes with another version of this library understand what is sent. A change of
// testdata/frames.golden requires a higher newestVersion.
func TestFramesAreGolden(t *testing.T) {
	t.Parallel()
	rest := bytes.NewReader(golden)
	for _, m := range []message{
		{Type: typeHello, Versions: [2]int{1, 1}, Process: "A7", PID: 42, NetNS: "cookie 1"},
		{Type: typeWait, PID: 43},
		{Type: typeEnding, PID: 42},
		{Type: typeRendezvous},
		{Type: typeLock},
		{Type: typeSocket, ID: 1, Network: "tcp", Address: ":8080"},
		{Type: typeSocket, ID: 2, Network: "udp6", Address: "[::1]:53", Files: true},
		{Type: typeEnd},
		{Type: typeReady, Keep: []int{1, 2}},
		{Type: typeGoing},
		{Type: typeStopped},
	} {
		frame := m.encode()
		want := make([]byte, len(frame))
		_, err := io.ReadFull(rest, want)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(frame))
		got, err := readMessage(bytes.NewReader(want))
		require.NoError(t, err)
		assert.Equal(t, m, got)
	}
	assert.Zero(t, rest.Len(), "more in the golden file")
}

func TestFrames(t *testing.T) {
	t.Parallel()
	for frame, want := range map[string]string{
		"\x00\x00":                          "unexpected EOF",
		"\x00\x00\x00\x09{":                 "unexpected EOF",
		"\x00\x00\x00\x09":                  "EOF",
		"\x04\x00\x00\x00{}":                "a message of 67108864 bytes is too long",
		"\x00\x00\x00\x01x":                 "a message is no JSON",
		"\x00\x00\x00\x0c" + `{"keep":"x"}`: "a message is no JSON",
	} {
		_, err := readMessage(strings.NewReader(frame))
		assert.ErrorContains(t, err, want, "%q", frame)
	}
	_, err := readMessage(strings.NewReader("\x00\x00\x00\x1a" + `{"type":"x","more":[1,{}]}`))
	assert.NoError(t, err, "unknown fields and types")
	for versions, ok := range map[[2]int]bool{{1, 1}: true, {1, 9}: true, {0, 1}: true, {2, 3}: false, {0, 0}: false, {}: false} {
		err := message{Versions: versions}.checkVersions()
		assert.Equal(t, ok, err == nil, "%v: %v", versions, err)
	}
}
