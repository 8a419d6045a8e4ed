package semantics_test

import (
	"embed"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

//go:embed testdata
var testdata embed.FS

// lines returns the lines of a file with something in them, without comments.
func lines(t testing.TB, name string) (list []string) {
	t.Helper()
	text, err := testdata.ReadFile("testdata/" + name)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}

func find(t testing.TB, name string) semantics.System {
	t.Helper()
	s, err := semantics.Find(name)
	require.NoError(t, err)
	return s
}

// options reads "-" or "addr+port".
func options(t testing.TB, words string) (set semantics.Options) {
	t.Helper()
	for name := range strings.SplitSeq(strings.Trim(words, "-"), "+") {
		o, ok := map[string]semantics.Options{
			"": 0, "addr": semantics.Addr, "port": semantics.Port, "lb": semantics.LB, "excl": semantics.Excl, "shareuid": semantics.ShareUID,
		}[name]
		require.True(t, ok, words)
		set |= o
	}
	return set
}

// parse reads a socket as cases.txt has it.
func parse(t testing.TB, words string) semantics.Binding {
	t.Helper()
	b := semantics.Binding{Proto: semantics.TCP, State: semantics.Bound, User: 1}
	for word := range strings.FieldsSeq(words) {
		state := semantics.Bound
		for state <= semantics.CloseWait && state.String() != word {
			state++
		}
		user, isUser := strings.CutPrefix(word, "user")
		port, _ := strings.CutPrefix(word, "port")
		number, err := strconv.ParseUint(port, 10, 16)
		switch {
		case state <= semantics.CloseWait:
			b.State = state
		case word == "udp":
			b.Proto = semantics.UDP
		case strings.HasSuffix(word, "tcp"): // the default; mptcp makes no difference
		case word == "dialed":
			b.Dialed = true
		case word == "connected":
			b.State, b.Dialed = semantics.Established, true
		case word == "dual":
			b.Addr = netip.IPv6Unspecified()
		case isUser:
			b.User, err = strconv.Atoi(user)
			require.NoError(t, err)
		case err == nil:
			b.Port = uint16(number)
		case strings.ContainsAny(word, ".:"):
			ip, dual := strings.CutSuffix(word, "/dual")
			b.Addr = netip.MustParseAddr(ip)
			b.V6Only = b.Addr.Is6() && !b.Addr.Is4In6() && !dual
		default:
			b.Options = options(t, word)
		}
	}
	return b
}

// The rules answer the questions of cases.txt as the kernels, their sources and their
// vendors do.
func TestCases(t *testing.T) {
	t.Parallel()
	list := lines(t, "cases.txt")
	assert.Equal(t, 959, len(list))
	for _, line := range list {
		f := append(strings.Split(line, "\t"), "", "")
		s, want := find(t, f[1]), f[3]
		sockets := strings.Split(f[2], " / ")
		var is semantics.Answer
		switch f[0] {
		case "bind":
			is = s.Bind(parse(t, sockets[0]), parse(t, sockets[1]))
		case "port0":
			is = s.AssignsPort(parse(t, sockets[0]), parse(t, sockets[1]))
		case "fact":
			fact := s.Fact(semantics.Topic(f[2]))
			assert.Contains(t, fact.Text, want, line)
			is.Evidence, want = fact.Evidence, ""
		case "since":
			version, known := s.OptionSince(options(t, f[2]))
			assert.Equal(t, want, version, line)
			is.Evidence, want = known, ""
		case "traffic":
			var sharing []semantics.Binding
			for _, words := range sockets[1:] {
				sharing = append(sharing, parse(t, words))
			}
			traffic := s.Traffic(netip.MustParseAddr(sockets[0]), sharing)
			is.Rule, is.Evidence = traffic.Rule, traffic.Evidence
			if is.Evidence.Kind != semantics.Unknown {
				checkShares(t, line, want, traffic)
				want = ""
			}
		default:
			t.Fatalf("no question: %s", line)
		}
		if want != "" {
			assert.Equal(t, want, is.String(), line)
			assert.Equal(t, is.Err == "", is.Step == "", line)
		}
		if f[4] != "" {
			assert.Equal(t, f[4], is.Rule.Name, line)
			assert.NotEmpty(t, is.Rule.Text, line)
		}
		known := is.Evidence.Kind.String() + ": " + is.Evidence.Reference
		assert.True(t, strings.HasPrefix(known, f[5]), "%s: it is %s", line, known)
	}
}

// checkShares compares who gets traffic with counts such as 0/0/200, 1/1 or c/c/0.
func checkShares(t testing.TB, line, want string, traffic semantics.Traffic) {
	t.Helper()
	var to []int
	for i, count := range strings.Split(want, "/") {
		if count != "0" {
			to = append(to, i)
		}
	}
	assert.Equal(t, to, traffic.To, line)
	if strings.Contains(want, "c") {
		assert.Equal(t, semantics.Copies, traffic.Way, line)
	} else if len(to) > 1 {
		assert.Equal(t, semantics.Spread, traffic.Way, line)
	}
}
