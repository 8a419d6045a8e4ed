//go:build !android && !ios

package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"example.com/reuse"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain is the example itself in the processes that the tests start.
func TestMain(m *testing.M) {
	if os.Getenv("REUSE_EXAMPLE") == "1" || os.Getenv(asIntruder) != "" {
		main()
	}
	if os.Getenv("GORACE") == "" { // a process built with -race ends with a second's sleep
		os.Setenv("GORACE", "atexit_sleep_ms=1")
	}
	os.Exit(m.Run())
}

// example runs the example in a process of its own, if there are processes.
func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		status = run(args, &out, &errs)
		return out.String(), errs.String(), status
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "REUSE_EXAMPLE=1")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// supported tells whether an address can be exclusive here.
func supported(t *testing.T, address string) bool {
	t.Helper()
	l, err := reuse.Config{Exclusive: reuse.On}.Listen(t.Context(), network(address), address)
	if errors.Is(err, errors.ErrUnsupported) {
		return false
	}
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return true
}

func ipv6(t *testing.T) bool {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	require.NoError(t, l.Close())
	return true
}

// A line of a table is an address, or else options, process, result and what was
// said.
var lines = regexp.MustCompile(`(?m)^  (\S+):\d+$|^    (none|Addr|Port|Addr, Port|PortLB) +(this|other|both) +(refused|untried|beside it|took it) +(\S.*)$`)

func TestNobodyTakesIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		address string
		tried   []string // hosts
	}{
		{"127.0.0.1:0", []string{"127.0.0.1", "0.0.0.0", "[::]"}},
		{"0.0.0.0:0", []string{"0.0.0.0", "127.0.0.1", "[::]"}},
		{"[::1]:0", []string{"[::1]", "[::]"}},
		{"[::]:0", []string{"[::]", "[::1]", "0.0.0.0", "127.0.0.1"}},
	} {
		t.Run(test.address, func(t *testing.T) {
			t.Parallel()
			six := ipv6(t)
			if strings.HasPrefix(test.address, "[") && !six {
				t.Skip("no IPv6 here")
			}
			stdout, stderr, status := example(t, "-address", test.address)
			if !supported(t, test.address) {
				assert.Equal(t, 1, status)
				assert.Empty(t, stdout)
				assert.Contains(t, stderr, "reuse: set Exclusive on "+runtime.GOOS+": unsupported")
				assert.Contains(t, stderr, "exclusive -h")
				return
			}
			require.Equal(t, 0, status, "%s%s", stdout, stderr)
			assert.Empty(t, stderr)

			first, contrast, found := strings.Cut(stdout, "For contrast")
			require.True(t, found, stdout)
			assert.Contains(t, first, "Nobody took it or its traffic.")
			attempts := map[string]int{}
			var host string
			for _, line := range lines.FindAllStringSubmatch(first, -1) {
				if line[1] != "" {
					host = line[1]
					continue
				}
				options, by, result, said := line[2], line[3], line[4], line[5]
				attempts[host]++
				if by == "both" {
					attempts[host]++
				}
				assert.NotEqual(t, "took it", result, "%s with %s", host, options)
				if result == "beside it" {
					assert.Contains(t, said, "bound; holder got ")
				}
				if runtime.GOOS == "linux" && (six || host != "[::]") {
					assert.Equal(t, "refused", result, "%s with %s", host, options)
				}
			}
			want := map[string]int{}
			for _, host := range test.tried {
				want[host] = 10 // 5 options, 2 processes
			}
			assert.Equal(t, want, attempts, stdout)

			if runtime.GOOS == "linux" { // the contrast: Port lets others in
				assert.Contains(t, contrast, "Port=On")
				assert.Regexp(t, `(?m)^    Port +(this|other|both) +took it +bound; holder got \d+ of (16|32)$`, contrast)
				assert.NotRegexp(t, `(?m)^    (none|Addr) `, contrast)
			}
		})
	}
}

// A holder that shares its address is found out.
//
// This test and the next have listeners in this process and count connections to
// them. They are not parallel: a process that starts has all open sockets for
// a moment, until exec. A listener closed in that moment still gets connections
// and loses them.
func TestNotExclusive(t *testing.T) {
	if reuse.Port.Supported() != nil {
		t.Skip("no way to share a port here")
	}
	holder, err := serve("holder", reuse.Config{Port: reuse.On}, "127.0.0.1:0")
	require.NoError(t, err)
	defer holder.Close()
	var stdout, stderr bytes.Buffer
	held, err := show(&stdout, &stderr, holder, "127.0.0.1:0")
	require.NoError(t, err)
	assert.False(t, held)
	assert.Contains(t, stdout.String(), "It was not exclusive.")
	assert.Empty(t, stderr.String())
}

// So is one whose traffic goes to a more specific address.
func TestMoreSpecific(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("who may bind beside a wildcard differs elsewhere")
	}
	holder, err := serve("holder", reuse.Config{Port: reuse.On}, "0.0.0.0:0")
	require.NoError(t, err)
	defer holder.Close()
	var stderr bytes.Buffer
	other, err := startOther(&stderr)
	require.NoError(t, err)
	this := &intruder{}
	results, err := attack(holder, this, other)
	require.NoError(t, err)
	require.NoError(t, this.Close())
	require.NoError(t, other.Close())
	assert.Empty(t, stderr.String())
	specific := 0
	for _, r := range results {
		if !addrPort(r.Address).Addr().IsLoopback() {
			continue
		}
		if r.Options == "none" || r.Options == "Addr" {
			assert.Equal(t, refused, r.Result, "%+v", r)
			continue
		}
		specific += r.attempts
		assert.Equal(t, tookIt, r.Result, "%+v", r)
		assert.Zero(t, r.reached, "%+v", r)
	}
	assert.Equal(t, 6, specific) // 3 options, 2 processes
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-nonsense"},
		{"nonsense"},
		{"-address"},
		{"-address", "nonsense"},
		{"-address", "127.0.0.1"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			stdout, stderr, status := example(t, args...)
			assert.Equal(t, 2, status)
			assert.Empty(t, stdout)
			assert.NotEmpty(t, stderr)
		})
	}
	stdout, stderr, status := example(t, "-h")
	assert.Equal(t, 0, status)
	assert.Contains(t, stdout+stderr, "Any address can be exclusive on Linux")
}

func TestTakenBefore(t *testing.T) {
	t.Parallel()
	if !supported(t, "127.0.0.1:0") {
		t.Skip("no address can be exclusive here")
	}
	l, err := reuse.Config{Exclusive: reuse.On}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	stdout, stderr, status := example(t, "-address", l.Addr().String())
	assert.Equal(t, 1, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "Try another address")
}

// A table keeps what is too long for a column for below.
func TestTable(t *testing.T) {
	t.Parallel()
	long := "Only one usage of each socket address (protocol/network address/port) is normally permitted."
	b := bid{Address: "127.0.0.1:1", Options: "Addr, Port"}
	var results table
	for _, r := range []row{
		{bid: b, process: "this", outcome: outcome{refused, long}, attempts: 1},
		{bid: b, process: "other", outcome: outcome{refused, long}, attempts: 1},
		{bid: bid{Address: "0.0.0.0:1", Options: "none"}, process: "this", outcome: outcome{besideIt, ""}, attempts: 1, reached: 16},
		{bid: bid{Address: "0.0.0.0:1", Options: "none"}, process: "other", outcome: outcome{tookIt, ""}, attempts: 1, reached: 9},
		{bid: bid{Address: "0.0.0.0:1", Options: "Port"}, process: "this", outcome: outcome{untried, "no such option"}, attempts: 1},
	} {
		results.add(r)
	}
	var out bytes.Buffer
	results.print(&out, refused, besideIt, tookIt)
	assert.Equal(t, `    options     by     result     the kernel said
  127.0.0.1:1
    Addr, Port  both   refused    note 1
  0.0.0.0:1
    none        this   beside it  bound; holder got 16 of 16
    none        other  took it    bound; holder got 9 of 16
  Note 1: `+long+`
  Each bind that succeeded was tested with 16 connections.
`, out.String())
	assert.Equal(t, "2 refused, 1 beside it, 1 took it, 1 untried", results.tally(refused, besideIt, tookIt, untried))
}

// The other process ends when its standard input does.
func TestOtherProcessEnds(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("no processes here")
	}
	var stderr bytes.Buffer
	other, err := startOther(&stderr)
	require.NoError(t, err)
	o, err := other.try(bid{Address: "127.0.0.1:0"}) // it holds something, too
	require.NoError(t, err)
	assert.Equal(t, outcome{Result: bound}, o)
	require.NoError(t, other.Close())
	assert.Empty(t, stderr.String())
}
