//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchmath"
)

// benchEnv makes the test binary be the program.
const benchEnv = "REUSE_BENCH"

func TestMain(m *testing.M) {
	if os.Getenv(benchEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// command runs the program and returns what it prints and its exit status.
func command(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	// Without GORACE every process sleeps a second at its end under -race.
	cmd.Env = append(os.Environ(), benchEnv+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// A short run of everything writes a page in which nothing is missing.
func TestBench(t *testing.T) {
	t.Parallel()
	docs := t.TempDir()
	path := filepath.Join(docs, "benchmarks.md")
	require.NoError(t, os.WriteFile(path, []byte("before\n"+pageBegin+"outdated\n"+pageEnd+"after\n"), 0o600))
	out, stderr, status := command(t, "-rounds=6", "-restarts=2", "-every=50ms", "-docs", docs)
	require.Zero(t, status, stderr)
	assert.Empty(t, stderr)

	written, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "before\n"+pageBegin+out+pageEnd+"after\n", string(written))
	assert.NotContains(t, out, "NaN")
	assert.NotContains(t, out, "%!")
	assert.NotContains(t, out, "too few", "six turns are enough for bounds")

	// What each way does, and with which options.
	for way, tables := range map[string]int{
		plain: 6 + 1, hand: 6 + 1, ours: 6 + 1, "libp2p": 6 + 1, "kavu": 4 + 1,
		"tcplisten": 2 + 1, "fasthttp": 2 + 1, handoverWay: 1, flipWay: 1,
	} {
		assert.Len(t, regexp.MustCompile("(?m)^\\| `"+way+"` \\|").FindAllString(out, -1), tables, way)
	}
	for way, options := range map[string]string{
		plain:  `1 | – | \d+ | – | – | dual-stack | yes`,
		hand:   `1 | 1 | \d+ | – | – | dual-stack | yes`,
		ours:   `1 | 1 | \d+ | – | – | dual-stack | yes`,
		"kavu": `1 | 1 | \d+ | – | – | IPv4 | no`,
	} {
		assert.Regexp(t, "(?m)^\\| `"+way+"` \\| "+strings.ReplaceAll(options, " | ", ` \| `)+` \|$`, out)
	}
	for _, w := range ways() {
		if w.module != "" {
			assert.Regexp(t, "`"+w.name+"` "+w.module+` v\d`, out)
		}
	}
	assert.Regexp(t, "(?m)^\\| `handover` \\| 2 \\| [\\d,]+ \\| 0 \\| ", out)
	assert.Regexp(t, "(?m)^\\| `tableflip` \\| 2 \\| [\\d,]+ \\| 0 \\| ", out)
	assert.Len(t, regexp.MustCompile(`(?m) \| (met|\*\*missed\*\*)(, not certain)? \| `).FindAllString(out, -1), 6+2+1+1)
	host, err := os.Hostname()
	require.NoError(t, err)
	if len(host) > 5 { // or it is part of a word
		assert.NotContains(t, out, host)
	}

	// The chart is well-formed, with a bar for each row of the first tables.
	chart, err := os.ReadFile(filepath.Join(docs, "benchmarks.svg"))
	require.NoError(t, err)
	bars := 0
	for d := xml.NewDecoder(bytes.NewReader(chart)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	assert.Equal(t, 7+7+5+5+4+4, bars)
	assert.Contains(t, string(chart), "prefers-color-scheme:dark")
	assert.NotContains(t, string(chart), "NaN")
}

// The page's other parts stay; without the marks nothing is written.
func TestWrite(t *testing.T) {
	t.Parallel()
	docs := t.TempDir()
	assert.ErrorIs(t, write(docs, "text", nil), os.ErrNotExist)
	path := filepath.Join(docs, "benchmarks.md")
	for _, page := range []string{"by hand\n", pageBegin + "no end\n", pageEnd + "no beginning\n"} {
		require.NoError(t, os.WriteFile(path, []byte(page), 0o600))
		assert.ErrorContains(t, write(docs, "text", nil), "lacks the lines")
		is, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, page, string(is))
	}
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for args, says := range map[string]string{
		"now":         `unexpected argument "now"`,
		"-nonsense":   "-nonsense",
		"-rounds=0":   "-rounds 0: give",
		"-restarts=0": "-restarts 0: give",
		"-every=1ms":  "-every 1ms: give",
	} {
		_, err := parse(strings.Fields(args))
		assert.ErrorContains(t, err, says, args)
	}
}

// Ratios are of the same turn, whatever the turns are like.
func TestRatio(t *testing.T) {
	t.Parallel()
	times := [][]float64{{1, 100, 1000, 2, 3, 4, 5}, {2, 200, 2000, 2, 9, 8, 10}}
	s := series{ways: []string{hand, ours}, cpu: times}
	assert.Equal(t, 2.0, s.ratio(ours, hand).Center)
	assert.Equal(t, "2.00 (1.00–3.00)", s.beside(ours))
	assert.Equal(t, "1", s.beside(hand))
	assert.Equal(t, "1.020 (1.000–1.040)", spread(benchmath.Summary{Center: 1.02, Lo: 1, Hi: 1.04}))
	s = series{ways: s.ways, cpu: [][]float64{{1}, {2}}}
	assert.Equal(t, "2.00 (too few turns for bounds)", s.beside(ours))
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lo, center, hi float64
		atMost         string
	}{
		{0.8, 0.9, 0.95, met},
		{0.8, 0.9, 1.1, met + perhaps},
		{0.9, 1.1, 1.2, missed + perhaps},
		{1.1, 1.2, 1.3, missed},
		{1, 1, 1, met},
	} {
		s := benchmath.Summary{Lo: tt.lo, Center: tt.center, Hi: tt.hi}
		assert.Equal(t, tt.atMost, atMost(s, 1), tt)
	}
}

// A target is missed by who misses it.
func TestTargets(t *testing.T) {
	t.Parallel()
	verdicts := func(mine, peer, allocs float64, lost int) (s string) {
		turns := func(ns float64) []float64 { return slices.Repeat([]float64{ns}, 9) }
		call := series{
			name: "Listen", ways: []string{plain, hand, ours, "peer"},
			cpu: [][]float64{turns(0.5), turns(1), turns(mine), turns(peer)}, alloc: []float64{1, 15, allocs, 16},
		}
		r := results{calls: []series{call, call}, handOvers: []handOver{{sent: 10, lost: lost}}}
		for _, target := range r.targets() {
			s += map[string]string{met: "+", missed: "-"}[target.verdict]
		}
		return s
	}
	assert.Equal(t, "++++++", verdicts(1, 1.2, 15, 0))
	assert.Equal(t, "++++++", verdicts(slowest, 1.2, 15, 0))
	assert.Equal(t, "--++++", verdicts(1.04, 1.2, 15, 0))
	assert.Equal(t, "++--++", verdicts(1, 0.9, 15, 0))
	assert.Equal(t, "++++-+", verdicts(1, 1.2, 16, 0))
	assert.Equal(t, "+++++-", verdicts(1, 1.2, 15, 1))
}

// A connection that nobody answers is lost, and has no time.
func TestLost(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	var some load
	some.one(l.Addr().String())
	assert.Equal(t, []int{1, 1}, []int{some.sent, some.lost})
	assert.Empty(t, some.took[0])
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	assert.Zero(t, quantile(nil, 0.5))
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 4, 1: 4} {
		assert.Equal(t, want, quantile([]float64{3, 1, 2, 4}, q), q)
	}
}
