//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// soakEnv makes the test binary be the soak.
const soakEnv = "REUSE_SOAK"

func TestMain(m *testing.M) {
	if os.Getenv(soakEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Each mode and shape runs, and loses nothing. The real soak takes longer.
func TestSoak(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"-modes=restarts -shapes=tcp,tcp-4,tcp-workers,unix,udp,udp-4 -restarts=3 -requests=100 -clients=4",
		"-modes=turns -shapes=tcp,unix,udp -restarts=11 -clients=4",
		"-modes=kills -shapes=tcp,tcp-4,unix,udp -restarts=5 -clients=4",
		"-modes=restarts -shapes=far-fastopen,far-full -restarts=1",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(args, "far") && os.Geteuid() != 0 {
				t.Skip("distant clients need root")
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", strings.Fields(args)...)
			// Without GORACE every process sleeps a second at its end under -race.
			cmd.Env = append(os.Environ(), soakEnv+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			require.NoError(t, cmd.Run(), "%s\n%s", &out, &errs)
			assert.Empty(t, errs.String())
			shapes := strings.Count(strings.Fields(args)[1], ",") + 1
			assert.Len(t, regexp.MustCompile(`(?m)^(restarts|turns|kills) `).FindAllString(out.String(), -1), shapes, out.String())
			assert.GreaterOrEqual(t, strings.Count(out.String(), " sent, 0 lost"), shapes, out.String())
			if strings.Contains(args, "fastopen") {
				assert.Regexp(t, `TCPFastOpenPassive [1-9]`, out.String())
			}
		})
	}
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"now", "-modes=x", "-shapes=x", "-restarts=0", "-clients=0"} {
		_, err := parse([]string{args})
		assert.Error(t, err, args)
	}
}

// A request that is not answered is lost for a reason, or in a gap.
func TestLost(t *testing.T) {
	t.Parallel()
	some := newLoad(service{Network: "unix", Patience: time.Second}, filepath.Join(t.TempDir(), "none"), [kinds]int{}, 0)
	some.one(&client{load: some})
	some.gap.Add(1)
	some.one(&client{load: some})
	n := some.now(fresh)
	assert.Equal(t, []int{2, 1, 1}, []int{n.sent, n.lost, n.lostInGap})
	assert.Equal(t, map[string]int{"dial: connect: no such file or directory": 1}, n.reasons)
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	assert.Zero(t, quantile(nil, 0.5))
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 4, 1: 4} {
		assert.Equal(t, want, quantile([]time.Duration{3e6, 1e6, 2e6, 4e6}, q), q)
	}
}
