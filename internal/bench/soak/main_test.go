package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
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

// command runs the soak and returns what it prints and its exit status.
func command(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	// Without GORACE every process sleeps a second at its end under -race.
	cmd.Env = append(os.Environ(), soakEnv+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

var totalLine = regexp.MustCompile(`(?m)^total +(\d+) +([\d,]+) +([\d,]+) `)

// A short soak of everything loses nothing. The real one takes minutes.
func TestSoak(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("for Linux")
	}
	out, stderr, status := command(t, "-connections=2000", "-restarts=20", "-naive=1000", "-every=20ms", "-clients=8", "-rate=2000")
	assert.Zero(t, status, stderr)
	assert.Empty(t, stderr)
	totals := totalLine.FindAllStringSubmatch(out, -1)
	require.Len(t, totals, 2, out)
	assert.Equal(t, "0", totals[0][3], out)
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, s := range shapes {
			assert.Len(t, regexp.MustCompile(`(?m)^`+network+` +`+s.name+` `).FindAllString(out, -1), 2, out)
		}
	}
	assert.Contains(t, out, "hand-over lost 0 of ")
	assert.Len(t, regexp.MustCompile(`then \d+ goroutines, .* then \d+ descriptors, .* kB of heap, .* MB of memory`).FindAllString(out, -1), 3, out)
	if os.Geteuid() == 0 {
		assert.Contains(t, out, "user 65534,")
	}
}

// What cannot be done in time is an error, with what there was until then.
func TestLimit(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("for Linux")
	}
	out, stderr, status := command(t, "-limit=300ms", "-every=20ms", "-clients=2", "-rate=100", "-networks=tcp4", "-listeners=1")
	assert.Equal(t, 1, status)
	assert.Regexp(t, `(?m)^tcp4 +1 +\d+ +\d+ +0 `, out)
	assert.Contains(t, stderr, "not done after 300ms")
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for args, says := range map[string]string{
		"now":                       `unexpected argument "now"`,
		"-nonsense":                 "-nonsense",
		"-connections=0":            "-connections 0: give",
		"-restarts=0":               "-restarts 0: give",
		"-naive=-1":                 "-naive -1: give",
		"-connections=5 -naive=6":   "-naive 6: give",
		"-clients=0":                "-clients 0: give",
		"-clients=8 -rate=7":        "-rate 7: give",
		"-rate=-1":                  "-rate -1: give",
		"-ratio=-1":                 "-ratio -1: give",
		"-every=1ms":                "-every 1ms: give",
		"-limit=0s":                 "-limit 0s: give",
		"-networks=udp4":            `there is no "udp4"`,
		"-networks=":                `there is no ""`,
		"-listeners=1,3":            `there is no "3"`,
		"-networks=tcp4,tcp6,tcp46": `there is no "tcp46"`,
	} {
		_, err := parse(strings.Fields(args))
		assert.ErrorContains(t, err, says, args)
	}
}

// Counts that differ between clients and servers are an error.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		sent, lost int
		answered   map[uint32]int
		served     [2]int
		odd        int
		says       string
	}{
		{"good", 5, 0, map[uint32]int{1: 2, 2: 3}, [2]int{2, 3}, 0, ""},
		{"lost on the way back", 5, 1, map[uint32]int{1: 2, 2: 2}, [2]int{2, 3}, 0, ""},
		{"forgotten", 6, 0, map[uint32]int{1: 2, 2: 3}, [2]int{2, 3}, 0, "6 sent, 5 answered, 0 lost"},
		{"answered by nobody", 5, 0, map[uint32]int{1: 2, 2: 3}, [2]int{2, 2}, 0, "server 2 has answered 2, and clients have 3"},
		{"not read", 5, 0, map[uint32]int{1: 2, 2: 3}, [2]int{2, 4}, 0, "server 2 has answered 4, and clients have 3"},
		{"a stranger's, or a probe", 5, 0, map[uint32]int{1: 2, 2: 3}, [2]int{2, 3}, 1, "1 connections without a request"},
	} {
		s := &soak{answered: tt.answered}
		err := s.check(result{sent: tt.sent, lost: tt.lost}, []*process{
			{generation: 1, answered: tt.served[0], odd: tt.odd}, {generation: 2, answered: tt.served[1]},
		})
		if tt.says == "" {
			assert.NoError(t, err, tt.name)
		} else {
			assert.ErrorContains(t, err, tt.says, tt.name)
		}
	}
}

func TestGrowth(t *testing.T) {
	t.Parallel()
	assert.Empty(t, growth(nil))
	var list []resources
	for i := range int64(30) {
		list = append(list, resources{10 + i, 20, 1000 * i, 1e6})
	}
	assert.Equal(t, "medians of the first and the last tenth: 11 then 38 goroutines, 20 then 20 descriptors, 1 then 28 kB of heap, 1 then 1 MB of memory", growth(list))
	u, err := usage()
	require.NoError(t, err)
	for _, n := range u {
		assert.Positive(t, n)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	assert.Zero(t, quantile(nil, 0.5))
	list := []time.Duration{3, 1, 2, 4}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.99: 4, 1: 4} {
		assert.Equal(t, want, quantile(list, q), q)
	}
	var r result
	assert.Zero(t, r.ratio())
	r.latency[quiet] = []time.Duration{4}
	r.latency[handing] = []time.Duration{6}
	assert.Equal(t, 1.5, r.ratio())
}

// A connection that cannot be made is lost.
func TestLost(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	s := &soak{network: "tcp4", address: l.Addr().String(), handover: true, answered: map[uint32]int{}, begin: time.Now()}
	s.one()
	r := s.collect()
	assert.Equal(t, []int{1, 1}, []int{r.sent, r.lost})
	require.Len(t, r.losses, 1)
	assert.Contains(t, r.losses[0], "quiet to quiet")
	assert.NoError(t, s.check(r, nil))
}
