//go:build !android && !ios

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main, asIntruder) }

func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return testproc.Example(t, run, args...)
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
var lines = regexp.MustCompile(`(?m)^(\S+):\d+$|^  (none|Addr|Port|Addr, Port|PortLB) +(this|other|both) +(refused|untried|beside it|took it) +(\S.*)$`)

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
				assert.Equal(t, term.Failed, status)
				assert.Empty(t, stdout)
				assert.Contains(t, stderr, "reuse: set Exclusive on "+runtime.GOOS+": unsupported")
				assert.Contains(t, stderr, "-h tells which systems")
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
				assert.Regexp(t, `(?m)^  Port +(this|other|both) +took it +bound; holder got \d+ of (16|32)$`, contrast)
				assert.NotRegexp(t, `(?m)^  (none|Addr) `, contrast)
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
	held, err := (&show{screen: term.New(&stdout), stderr: &stderr}).run(holder, "127.0.0.1:0")
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
	results, err := new(show).attack(holder, this, other)
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
		specific++
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
			assert.Equal(t, term.Failed, status)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, "exclusive: ")
			assert.Contains(t, stderr, "\nFor help: go run ./examples/exclusive -h\n")
		})
	}
	stdout, stderr, status := example(t, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "exclusive", stdout, "address address", "json")
	testproc.Lost(t, run, "-h")
}

func TestJSON(t *testing.T) {
	t.Parallel()
	if !supported(t, "127.0.0.1:0") {
		t.Skip("no address can be exclusive here")
	}
	stdout, stderr, status := example(t, "-json")
	require.Equal(t, term.OK, status, stderr)
	assert.Empty(t, stderr)
	lines := json.NewDecoder(strings.NewReader(stdout))
	lines.DisallowUnknownFields()
	seen := map[string]int{}
	for lines.More() {
		var a attempt
		require.NoError(t, lines.Decode(&a))
		seen[a.HeldWith+" "+a.By]++
		assert.Equal(t, runtime.GOOS, a.OS)
		assert.Equal(t, addrPort(a.Holder).Port(), addrPort(a.Address).Port())
		assert.Contains(t, []string{"none", "Addr", "Port", "Addr, Port", "PortLB"}, a.Options)
		switch a.Result {
		case refused, untried:
			assert.NotEmpty(t, a.Said)
			assert.Zero(t, a.Connections)
		case besideIt, tookIt:
			assert.Empty(t, a.Said)
			assert.Equal(t, connections, a.Connections)
			assert.LessOrEqual(t, a.HolderGot, connections)
		default:
			t.Errorf("%+v", a)
		}
		assert.False(t, a.HeldWith == "Exclusive=On" && a.Result == tookIt, "%+v", a)
	}
	shared := "Port=On"
	if reuse.Port.Supported() != nil {
		shared = "Addr=On"
	}
	assert.Equal(t, map[string]int{"Exclusive=On this": 15, "Exclusive=On other": 15, shared + " this": 15, shared + " other": 15}, seen)
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t)
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	stdout, _, _ := testproc.Run(t, cmd)
	testproc.Narrow(t, 40, stdout)
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
	assert.Equal(t, term.Failed, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "try another address with -address")
}

// A table keeps what is too long for a column for below.
func TestTable(t *testing.T) {
	t.Parallel()
	long := "Only one usage of each socket address (protocol/network address/port) is normally permitted."
	b := bid{Address: "127.0.0.1:1", Options: "Addr, Port"}
	results := table{
		{bid: b, process: "this", outcome: outcome{refused, long}},
		{bid: b, process: "other", outcome: outcome{refused, long}},
		{bid: bid{Address: "0.0.0.0:1", Options: "none"}, process: "this", outcome: outcome{besideIt, ""}, made: 16, reached: 16},
		{bid: bid{Address: "0.0.0.0:1", Options: "none"}, process: "other", outcome: outcome{tookIt, ""}, made: 16, reached: 9},
		{bid: bid{Address: "0.0.0.0:1", Options: "Port"}, process: "this", outcome: outcome{untried, "no such option"}},
	}
	var out bytes.Buffer
	results.print(term.New(&out), refused, besideIt, tookIt)
	assert.Equal(t, `  options     by     result     said
127.0.0.1:1
  Addr, Port  both   refused    note 1
0.0.0.0:1
  none        this   beside it  bound; holder got 16 of 16
  none        other  took it    bound; holder got 9 of 16
  Note 1: Only one usage of each socket address (protocol/network
  address/port) is normally permitted.
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

// It is not parallel for the reason that is said at TestNotExclusive.
func TestOutputLost(t *testing.T) {
	if !supported(t, "127.0.0.1:0") {
		t.Skip("no address can be exclusive here")
	}
	testproc.Lost(t, run)
	testproc.Lost(t, run, "-json")
}
