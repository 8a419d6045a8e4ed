//go:build (unix && !android && !ios) || windows

package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

func TestBothReceiversGetAll(t *testing.T) {
	t.Parallel()
	out, stderr, status := testproc.Run(t, testproc.Command(t))
	require.Equal(t, 0, status, "%s%s", out, stderr)
	out = strings.Join(strings.Fields(out), " ")
	bound := regexp.MustCompile(`Receiver \d of 239\.86\.21\.7 is bound to 0\.0\.0\.0:(\d+)\.`).FindAllStringSubmatch(out, -1)
	require.Len(t, bound, 2, out)
	assert.Equal(t, bound[0][1], bound[1][1], "the receivers' ports")
	for _, receiver := range []string{"1", "2"} {
		for _, n := range []string{"1", "2", "3"} {
			assert.Contains(t, out, "Receiver "+receiver+` gets "datagram `+n+` of 3"`)
		}
	}
}
