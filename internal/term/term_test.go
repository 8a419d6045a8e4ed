package term

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// terminal returns a screen of some columns and what it prints.
func terminal(columns int) (*Screen, *strings.Builder) {
	var out strings.Builder
	return &Screen{out: &out, size: func() (int, int) { return columns, 10 }, live: true}, &out
}

func TestFile(t *testing.T) {
	t.Setenv("COLUMNS", "33")
	name := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(name)
	require.NoError(t, err)
	s := New(f)
	assert.False(t, s.Live())
	s.Draw("drawn")
	s.Printf("%d printed\n", 1)
	s.Draw("drawn")
	s.Textf("A paragraph that is longer than %d columns.", 33)
	s.Draw()
	assert.Equal(t, "plain", s.Paint(Red, "plain"))
	assert.Equal(t, "##..", s.Bar(4, 0.5))
	require.NoError(t, s.Err())
	require.NoError(t, f.Close())
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "1 printed\nA paragraph that is longer than\n33 columns.\n", string(text))

	s.Printf("too late\n")
	first := s.Err()
	require.ErrorIs(t, first, os.ErrClosed)
	s.Printf("again\n")
	assert.Equal(t, first, s.Err())
}

func TestColumns(t *testing.T) {
	for value, want := range map[string]int{"": 80, "0": 80, "-1": 80, "many": 80, "120": 120} {
		t.Setenv("COLUMNS", value)
		unknown := &Screen{size: func() (int, int) { return 0, 0 }}
		columns, rows := unknown.Size()
		assert.Equal(t, want, columns, "COLUMNS=%s", value)
		assert.Equal(t, 24, rows)
		s, _ := terminal(50)
		columns, rows = s.Size()
		assert.Equal(t, 50, columns, "the terminal knows better")
		assert.Equal(t, 10, rows)
	}
}

func TestIndent(t *testing.T) {
	t.Parallel()
	s, out := terminal(12)
	s.Indentf("  ", "one two %s", "six")
	assert.Equal(t, "  one two\n  six\n", out.String())
}

func TestDraw(t *testing.T) {
	t.Parallel()
	s, out := terminal(10)
	prints := func(want string) {
		t.Helper()
		assert.Equal(t, want, out.String())
		out.Reset()
	}
	s.Draw("123456789012")
	prints("123456789")
	s.Draw("one", "two", "three")
	prints("\r\x1b[J" + "one\ntwo\nthree")
	s.Printf("to stay\n")
	prints("\r\x1b[2A\x1b[J" + "to stay\n" + "one\ntwo\nthree")
	s.Draw("four")
	prints("\r\x1b[2A\x1b[J" + "four")
	s.Draw()
	prints("\r\x1b[J")
	s.Draw()
	prints("")
}

func TestPaint(t *testing.T) {
	t.Parallel()
	s, _ := terminal(10)
	assert.Equal(t, "text", s.Paint(Red, "text"))
	s.color = true
	assert.Equal(t, "\x1b[31mtext\x1b[0m", s.Paint(Red, "text"))
	assert.Empty(t, s.Paint(Red, ""))
}

func TestBar(t *testing.T) {
	t.Parallel()
	s, _ := terminal(10)
	for _, tt := range []struct {
		columns int
		part    float64
		want    string
	}{
		{4, 0, "...."}, {4, 0.5, "##.."}, {4, 1, "####"}, {4, 2, "####"}, {4, -1, "...."}, {0, 1, ""}, {-3, 0.5, ""},
	} {
		assert.Equal(t, tt.want, s.Bar(tt.columns, tt.part), "%d columns, %v", tt.columns, tt.part)
	}
	s.unicode, s.color = true, true
	assert.Equal(t, "\x1b[36m██\x1b[0m░░", s.Bar(4, 0.5))
}

func TestShowsUnicode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		goos, env string
		want      bool
	}{
		{"linux", "", false},
		{"linux", "LANG=C", false},
		{"linux", "LANG=de_DE.UTF-8", true},
		{"linux", "LANG=C.utf8", true},
		{"linux", "LC_ALL=C LANG=C.UTF-8", false},
		{"linux", "LC_CTYPE=C.UTF-8 LANG=C", true},
		{"windows", "", true},
		{"plan9", "", true},
	} {
		getenv := func(name string) string {
			for _, v := range strings.Fields(tt.env) {
				if value, ok := strings.CutPrefix(v, name+"="); ok {
					return value
				}
			}
			return ""
		}
		assert.Equal(t, tt.want, showsUnicode(tt.goos, getenv), "%s %s", tt.goos, tt.env)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 12: "12", 123: "123", 1234: "1,234", 123456: "123,456", 1234567: "1,234,567", -123: "-123", -1234: "-1,234"} {
		assert.Equal(t, want, Number(n))
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "0 requests", Count(0, "request"))
	assert.Equal(t, "1 request", Count(1, "request"))
	assert.Equal(t, "1,001 requests", Count(1001, "request"))
}

func TestCut(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "", cut("text", 0))
	assert.Equal(t, "", cut("text", -1))
	assert.Equal(t, "te", cut("text", 2))
	assert.Equal(t, "text", cut("text", 4))
	assert.Equal(t, "██", cut("███", 2))
	assert.Equal(t, "a\x1b[31mb\x1b[0m", cut("a\x1b[31mbc\x1b[0md", 2), "the color ends all the same")
	assert.Equal(t, "\x1b[", cut("\x1b[", 5), "no escape sequence")
}

func TestFill(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "", fill("", 10))
	assert.Equal(t, "one two", fill(" one\n two ", 10))
	assert.Equal(t, "one two\nthree", fill("one two three", 10))
	assert.Equal(t, "one\nlongerthanten\ntwo", fill("one longerthanten two", 10))
	assert.Equal(t, "1234 67890\n1", fill("1234 67890 1", 10))
}

// failing cannot be written to.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestErr(t *testing.T) {
	t.Parallel()
	s := &Screen{out: failing{}, size: func() (int, int) { return 80, 24 }}
	assert.NoError(t, s.Err())
	s.Printf("text\n")
	assert.EqualError(t, s.Err(), "full")
}
