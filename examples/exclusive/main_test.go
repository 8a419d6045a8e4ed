//go:build !android && !ios

package main

import (
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

// Nothing takes an exclusive address. One with Port is taken where that exists.
func TestExclusive(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "[::]:0", "0.0.0.0:0"} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			cmd := testproc.Command(t, "-address", address)
			cmd.Env = append(cmd.Env, "COLUMNS=40")
			l, err := serve(t.Context(), "test", reuse.Config{Exclusive: reuse.On}, address)
			out, stderr, status := testproc.Run(t, cmd)
			if err != nil {
				assert.Equal(t, 2, status)
				assert.Contains(t, stderr, err.Error())
				if runtime.GOOS == "linux" && address[0] == '0' {
					assert.ErrorIs(t, err, errors.ErrUnsupported)
				}
				return
			}
			require.NoError(t, l.Close())
			require.Equal(t, 0, status, "%s%s", out, stderr)
			testproc.Narrow(t, 40, out)
			exclusive, shared, _ := strings.Cut(out, "\n\n")
			assert.NotContains(t, exclusive, "TOOK IT")
			if reuse.Port.Supported() == nil {
				assert.Contains(t, shared, "TOOK IT")
			}
			if runtime.GOOS == "linux" {
				tries := 5 * len(targets(netip.MustParseAddrPort(address).Addr()))
				assert.Equal(t, tries, strings.Count(exclusive+"\n", "  address already in use\n"), exclusive)
			}
		})
	}
}
