//go:build !android && !ios

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

// prepareEnv says what prepare is to make of the example's process.
const prepareEnv = "REUSE_MATRIX_PREPARE"

func TestMain(m *testing.M) {
	if err := prepare(os.Getenv(prepareEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	testproc.MainExample(m, main, asSecond)
}

func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return testproc.Run(t, testproc.Command(t, args...))
}

// decode reads the lines of -json.
func decode(t *testing.T, stdout string) (rows []row) {
	t.Helper()
	lines := json.NewDecoder(strings.NewReader(stdout))
	lines.DisallowUnknownFields()
	for {
		var r row
		err := lines.Decode(&r)
		if errors.Is(err, io.EOF) {
			return rows
		}
		require.NoError(t, err)
		rows = append(rows, r)
	}
}

//go:embed testdata/linux-6.18.txt
var linux618 string

// committed returns the outcomes that were measured on Linux 6.18, by all of
// a row but the outcome.
func committed(t *testing.T) map[string]string {
	t.Helper()
	outcomes := map[string]string{}
	sets := [][]string{{}, {"addr"}, {"port"}, {"addr", "port"}}
	for line := range strings.Lines(linux618) {
		if line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		require.Len(t, f, 6, line)
		for user, cells := range f[4:] {
			cells = strings.ReplaceAll(cells, "-", "")
			require.Len(t, cells, 16, line)
			for i, c := range cells {
				r := measure.Row{
					First: measure.Address(f[0]), Second: measure.Address(f[1]), Proto: f[2], State: f[3],
					SameUID: user == 0, A: sets[i/4], B: sets[i%4],
				}
				outcomes[key(r)] = map[rune]string{'o': "ok", 'x': "b:bind:EADDRINUSE"}[c]
			}
		}
	}
	require.Len(t, outcomes, 2*576)
	return outcomes
}

func key(r measure.Row) string {
	return fmt.Sprintf("%s %s %s %v, %s %v, same user %v", r.Proto, r.State, r.First, r.A, r.Second, r.B, r.SameUID)
}

// The rules of Linux, as -os shows them, are what was measured.
func TestOS(t *testing.T) {
	t.Parallel()
	want := committed(t)
	for _, args := range [][]string{nil, {"-uid", "1"}, {"-uid", "1000"}} {
		stdout, stderr, status := example(t, append([]string{"-os", "linux", "-json"}, args...)...)
		require.Equal(t, 0, status, stderr)
		assert.Empty(t, stderr)
		rows := decode(t, stdout)
		require.Len(t, rows, 576)
		for _, r := range rows {
			assert.Equal(t, args == nil, r.SameUID)
			assert.Equal(t, want[key(r.Row)], r.Outcome, key(r.Row))
			assert.Equal(t, "linux", r.OS)
			assert.Equal(t, "measured", r.Known)
			assert.Contains(t, r.Where, "6.18.44")
		}
	}
}

// Each system's table fits 80 columns and a page, and accounts for each pair.
func TestEverySystem(t *testing.T) {
	t.Parallel()
	for _, s := range semantics.Systems() {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			page := filepath.Join(t.TempDir(), "page.html")
			stdout, stderr, status := example(t, "-os", s.Name(), "-html", page)
			require.Equal(t, 0, status, stderr)
			assert.Empty(t, stderr)
			checkText(t, stdout, 80)
			sets := len(s.Subsets())
			n := 12 * 3 * sets * sets
			assert.Contains(t, strings.ReplaceAll(stdout, ",", ""), fmt.Sprintf("\n%d pairs of binds: ", n))
			total := 0
			for _, line := range regexp.MustCompile(`(?m)^([\d,]+) (measured|source|vendor|inferred|unsure|not known)\b`).FindAllStringSubmatch(stdout, -1) {
				var k int
				_, err := fmt.Sscan(strings.ReplaceAll(line[1], ",", ""), &k)
				require.NoError(t, err)
				total += k
			}
			assert.Equal(t, n, total, "pairs by how they are known")
			for _, o := range s.Options() {
				assert.Contains(t, stdout, letters[o.String()]+" "+s.OptionName(o))
			}
			checkPage(t, page, n)

			cmd := testproc.Command(t, "-os", s.Name())
			cmd.Env = append(cmd.Env, "COLUMNS=200")
			wide, _, _ := testproc.Run(t, cmd)
			checkText(t, wide, 200)
			assert.Less(t, strings.Count(wide, "\n"), strings.Count(stdout, "\n"), "pairs of addresses side by side")
			assert.Equal(t, strings.Count(stdout, ", then "), strings.Count(wide, ", then "))
		})
	}
}

// checkText tells whether a table is as wide as it may be, and has no colors.
func checkText(t *testing.T, text string, columns int) {
	t.Helper()
	widest := 0
	text, _, _ = strings.Cut(text, "The same is in ") // which has a name of any width
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		widest = max(widest, len(line))
		assert.Equal(t, strings.TrimRight(line, " "), line)
	}
	assert.Less(t, widest, columns)
	assert.NotContains(t, text, "\x1b")
}

// checkPage tells whether a page has a number of cells, and needs nothing but
// itself.
func checkPage(t *testing.T, name string, cells int) {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	text := string(data)
	assert.Equal(t, cells, strings.Count(text, "<button data-w="))
	assert.True(t, strings.HasSuffix(text, "</html>\n"))
	assert.NotRegexp(t, `(?i)https?:|\b(src|href)=|@import|url\(`, text)
	why := regexp.MustCompile(`(?m)^const why = (\[.*\])$`).FindStringSubmatch(text)
	require.NotNil(t, why)
	var texts []string
	require.NoError(t, json.Unmarshal([]byte(why[1]), &texts))
	used := map[int]bool{}
	for _, m := range regexp.MustCompile(`data-w="(\d+)"`).FindAllStringSubmatch(text, -1) {
		var n int
		_, err := fmt.Sscan(m[1], &n)
		require.NoError(t, err)
		used[n] = true
	}
	assert.Len(t, used, len(texts), "each text belongs to a cell")
	for _, text := range texts {
		assert.Regexp(t, `(?s)^\S.*\.$`, text)
	}
	entries, err := os.ReadDir(filepath.Dir(name))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing temporary is left")
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-nonsense"}, "not defined: -nonsense"},
		{[]string{"nonsense"}, `unexpected argument "nonsense"`},
		{[]string{"-os", "nonsense"}, "there are: linux, "},
		{[]string{"-os", ""}, "there are: linux, "},
		{[]string{"-os", "linux", "-two"}, "nothing to do for -two"},
		{[]string{"-uid", "-1"}, "not the number of a user"},
		{[]string{"-uid", "root"}, "not the number of a user"},
		{[]string{"-uid", "4294967295"}, "not the number of a user"},
		{[]string{"-uid", "4294967296"}, "not the number of a user"},
		{[]string{"-uid", "99999999999"}, "not the number of a user"},
		{[]string{"-html", ""}, "needs the name of a file"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()
			stdout, stderr, status := testproc.Example(t, run, test.args...)
			assert.Equal(t, term.Failed, status)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, test.want)
			assert.Contains(t, stderr, "\nFor help: go run ./examples/matrix -h\n")
		})
	}
	stdout, stderr, status := testproc.Example(t, run, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "matrix", stdout, "html file", "json", "os name", "two", "uid N")
	testproc.Lost(t, run, "-h")
}

// What says something is as wide as the screen, if the tables fit it.
func TestNarrow(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t, "-os", "linux")
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	stdout, _, _ := testproc.Run(t, cmd)
	testproc.Narrow(t, 40, stdout)
	assert.Contains(t, stdout, "\n  - none\n  A SO_REUSEADDR\n  P SO_REUSEPORT\n")
}

// What the running system does is what was measured before, on that version, and
// what the rules say, whoever makes the second socket.
func TestRunning(t *testing.T) {
	t.Parallel()
	want := committed(t)
	for _, test := range []struct {
		args []string
		text string
	}{
		{nil, "each pair of sockets was made by one process."},
		{[]string{"-two"}, "the second socket of each pair was made by a second process."},
		{[]string{"-uid", "65534"}, "the second socket of each pair was made by user 65534, the first by user 0."},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()
			if _, _, err := uname(); err != nil {
				t.Skip("no sockets with options here")
			}
			if test.args != nil && test.args[0] == "-uid" && os.Geteuid() != 0 {
				t.Skip("only root can become another user")
			}
			stdout, stderr, status := example(t, append(test.args, "-json")...)
			if status == term.OK {
				assert.Empty(t, stderr)
			}
			rows := decode(t, stdout)
			require.NotEmpty(t, rows)
			release := rows[0].Release
			s, err := semantics.On(runtime.GOOS, release, "")
			require.NoError(t, err)
			differences := 0
			for _, r := range rows {
				assert.Equal(t, runtime.GOOS, r.OS)
				assert.Equal(t, release, r.Release)
				assert.Equal(t, len(test.args) < 2, r.SameUID)
				assert.Empty(t, r.Known)
				if runtime.GOOS == "linux" && strings.HasPrefix(release, "6.18.") {
					assert.Equal(t, want[key(r.Row)], r.Outcome, key(r.Row))
				}
			}
			page := filepath.Join(t.TempDir(), "page.html")
			stdout, stderr, again := example(t, append(test.args, "-html", page)...)
			if again == term.OK {
				assert.Empty(t, stderr)
			}
			checkText(t, stdout, 80)
			checkPage(t, page, len(rows))
			text := strings.ReplaceAll(stdout, "\n", " ")
			assert.Contains(t, text, test.text)
			_, err = fmt.Sscan(regexp.MustCompile(`([\d,]+) differences? from the rules of `).FindStringSubmatch(text)[1], &differences)
			require.NoError(t, err)
			assert.Contains(t, text, s.Title())
			for _, status := range []int{status, again} {
				if differences > 0 && runtime.GOOS == "windows" && impostor() != "" {
					assert.Equal(t, 1, status)
					continue
				}
				assert.Equal(t, 0, status, "%d differences", differences)
			}
			if runtime.GOOS == "linux" && !strings.Contains(stdout, "Left out: ") {
				assert.Len(t, rows, 576)
			}
		})
	}
}

// Who may not become another user is told so.
func TestNotAllowed(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t, "-uid", "54321")
	if !unprivileged(cmd) {
		t.Skip("root can become anybody here")
	}
	stdout, stderr, status := testproc.Run(t, cmd)
	assert.Equal(t, 2, status)
	assert.Empty(t, stdout)
	assert.Regexp(t, `^matrix: -uid 54321: .+; only root can become another user, on Unix systems\n$`, stderr)
}

// A page that cannot be written is an error, and leaves nothing.
func TestPageNotWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	null := filepath.Join(t.TempDir(), "null") // in place of which root could put a file
	if runtime.GOOS == "windows" {             // whose devices are not in folders
		null = dir
	} else {
		require.NoError(t, os.Symlink(os.DevNull, null))
	}
	for _, test := range []struct{ name, want string }{
		{filepath.Join(dir, "none", "page.html"), "page.html"},
		{dir, "not a regular file"},
		{null, "not a regular file"},
	} {
		stdout, stderr, status := example(t, "-os", "linux", "-html", test.name)
		assert.Equal(t, 2, status)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "matrix: -html: ")
		assert.Contains(t, stderr, test.want)
	}
	locked := filepath.Join(dir, "locked")
	require.NoError(t, os.Mkdir(locked, 0o555))
	switch {
	case runtime.GOOS == "windows": // where it is not locked
		require.NoError(t, os.Remove(locked))
	case os.Geteuid() == 0: // who may write there, but on Linux not make a file in sysfs
		require.NoError(t, os.Remove(locked))
		locked = "/sys"
	}
	if _, err := os.Stat(locked); err == nil {
		stdout, stderr, status := example(t, "-os", "linux", "-html", filepath.Join(locked, "page.html"))
		assert.Equal(t, 2, status)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "matrix: -html: cannot write "+locked+"/page.html: permission denied")
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		assert.Equal(t, filepath.Base(locked), e.Name())
	}
}

// What is in the file stays until the new page is whole.
func TestPageReplaced(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.html")
	require.NoError(t, os.WriteFile(page, []byte("old"), 0o600))
	old, err := os.Open(page)
	require.NoError(t, err)
	defer old.Close()
	if runtime.GOOS == "windows" { // where an open file cannot be replaced
		require.NoError(t, old.Close())
	}
	_, stderr, status := example(t, "-os", "linux", "-html", page)
	require.Equal(t, 0, status, stderr)
	checkPage(t, page, 576)
	if runtime.GOOS != "windows" {
		data, err := io.ReadAll(old)
		require.NoError(t, err)
		assert.Equal(t, "old", string(data), "the old file was not written to")
	}
}

// Who reads only the beginning of the output makes the program fail, after the
// page is written.
func TestClosedPipe(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"-json", "-json=false"} {
		t.Run(arg, func(t *testing.T) {
			t.Parallel()
			page := filepath.Join(t.TempDir(), "page.html")
			cmd := testproc.Command(t, "-os", "linux", arg, "-html", page)
			r, w, err := os.Pipe()
			require.NoError(t, err)
			require.NoError(t, r.Close())
			defer w.Close()
			cmd.Stdout = w
			_, stderr, status := testproc.Run(t, cmd)
			assert.Equal(t, 2, status)
			assert.Regexp(t, `^matrix: write \S+: \S.*\n$`, stderr)
			checkPage(t, page, 576)
		})
	}
}

// A difference is marked, told and counted, in the table and on the page.
func TestDifferences(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("linux")
	require.NoError(t, err)
	tab := predicted(s, user)
	tab.Measured = true
	for i := range tab.Rows {
		tab.Rows[i].Known, tab.Rows[i].Where = "", ""
	}
	stdout, page := printed(t, tab)
	assert.Contains(t, stdout, "\n576 pairs of binds: 276 both, 300 refused.\n")
	assert.Contains(t, stdout, "\n0 differences from the rules of Linux 3.9 and later.\n")
	assert.NotContains(t, stdout, "!")
	assert.NotContains(t, page, "only pairs with differences")

	for i := range 12 {
		tab.Rows[i*40].Outcome = "b:listen:EACCES"
	}
	tab.Rows[1].documented = ""
	stdout, page = printed(t, tab)
	assert.Contains(t, strings.ReplaceAll(stdout, "\n", " "), " 12 differences from the rules of Linux 3.9 and later, which do not say for sure what becomes of 1 pair. ")
	assert.Equal(t, 12, strings.Count(stdout, "l!"))
	assert.Equal(t, 10, strings.Count(stdout, "\n! "))
	assert.Contains(t, stdout, "\n! tcp 127.0.0.1 is bound, then 127.0.0.1\n")
	assert.Contains(t, stdout, "\n  listen: EACCES; the rules: bind: EADDRINUSE. ")
	assert.Contains(t, stdout, "... and 2 more; -json has all pairs\n")
	assert.Contains(t, page, "only pairs with differences")
	assert.Equal(t, 12, strings.Count(page, `differs"><button`))
	assert.Contains(t, page, "listen: EACCES – the rules say: bind: EADDRINUSE.")
}

// What nobody is sure of is shown, and no measurement contradicts it.
func TestUnsure(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("aix")
	require.NoError(t, err)
	unsure := 0
	for _, r := range predicted(s, user).Rows {
		if r.Known == semantics.Unsure.String() {
			unsure++
			assert.NotEmpty(t, r.Outcome)
			r.Outcome = "b:bind:EIO"
			assert.False(t, r.differs(), key(r.Row))
		}
	}
	assert.NotZero(t, unsure)
}

// A late is a Binder that comes to a port which somebody has taken, but for the
// last time.
type late struct{ calls, late int }

func (l *late) Bind(ctx context.Context, p measure.Pair, port uint16) (string, error) {
	if l.calls++; l.calls <= l.late {
		return "b:bind:EADDRINUSE", nil
	}
	return measure.Here{}.Bind(ctx, p, port)
}

// A difference that does not last is none.
func TestTries(t *testing.T) {
	t.Parallel()
	release, version, err := uname()
	if err != nil {
		t.Skip("no sockets with options here")
	}
	s, err := semantics.On(runtime.GOOS, release, version)
	require.NoError(t, err)
	p := measure.Pair{Proto: semantics.TCP, State: semantics.Bound, First: measure.Wildcard, Second: measure.Specific6} // do not meet
	if usable, _ := measure.Usable([]measure.Pair{p}); len(usable) == 0 {
		t.Skip("no IPv6 here")
	}
	for _, test := range []struct {
		late, calls int
		outcome     string
	}{{0, 1, "ok"}, {2, 3, "ok"}, {3, 3, "b:bind:EADDRINUSE"}} {
		r, _ := ask(s, p, user, user)
		require.Equal(t, "ok", r.documented)
		second := &late{late: test.late}
		require.NoError(t, r.bind(t.Context(), p, second))
		assert.Equal(t, test.calls, second.calls)
		assert.Equal(t, test.outcome, r.Outcome)
	}
}

// printed returns a table's text and page.
func printed(t *testing.T, tab *table) (stdout, page string) {
	t.Helper()
	var out strings.Builder
	require.NoError(t, (&options{}).output(tab, &out))
	html, err := tab.html()
	require.NoError(t, err)
	return out.String(), string(html)
}

func TestBeside(t *testing.T) {
	t.Parallel()
	b := func(lines ...string) (b block) {
		for _, l := range lines {
			b = append(b, line{l, l})
		}
		return b
	}
	text := func(b block) (list []string) {
		for _, l := range b {
			assert.Equal(t, l.plain, l.painted)
			list = append(list, strings.TrimRight(l.plain, " "))
		}
		return list
	}
	blocks := []block{b("one", "1"), b("two"), b("three", "3", "3")}
	assert.Equal(t, []string{"one  two  three", "1         3", "          3"}, text(beside(blocks, 15)))
	assert.Equal(t, []string{"one  two", "1", "three", "3", "3"}, text(beside(blocks, 14)))
	assert.Equal(t, []string{"one", "1", "two", "three", "3", "3"}, text(beside(blocks, 1)))
	assert.Empty(t, beside(slices.Clone(blocks)[:0], 80))
}

// The legend names the errors as their system does.
func TestErrorNames(t *testing.T) {
	t.Parallel()
	for system, want := range map[string]string{
		"windows": "x WSAEADDRINUSE   a WSAEACCES ",
		"linux":   "x EADDRINUSE\n",
	} {
		stdout, stderr, status := example(t, "-os", system)
		assert.Zero(t, status, stderr)
		assert.Contains(t, stdout, want)
	}
}

func TestOutputLost(t *testing.T) {
	t.Parallel()
	testproc.Lost(t, run, "-os", "linux")
	testproc.Lost(t, run, "-os", "linux", "-json")
}
