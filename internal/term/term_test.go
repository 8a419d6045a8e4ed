package term

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"example.com/reuse/internal/testproc"
)

// example is a program like those of the examples: it prints what another process prints.
func example() {
	Child(func(ctx context.Context, job []string) error {
		if job[0] == "failed" {
			return errors.New(job[0])
		}
		fmt.Println(strings.Join(job, "-"))
		<-ctx.Done() // until Stop
		return nil
	})
	word := flag.String("word", "one", "a `word`")
	Main("Usage: example\n", 0, func() error {
		p, err := Start([]string{*word, "two"})
		if err != nil {
			return err
		}
		Say("  %s%s", p.Line, strings.Repeat(" word", 20))
		if err := p.Stop(); err != nil || *word != "no" {
			return err
		}
		return fmt.Errorf("at last: %w", No("not so"))
	})
}

func TestMain(m *testing.M) { testproc.MainExample(m, example) }

func TestMainExits(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		status         int
		stdout, stderr string
	}{
		"":             {0, "  one-two word word", ""},
		"-word=no":     {1, "  no-two", ": at last: not so\n"},
		"-word=failed": {2, "", ": the other process did not start: exit status 2\n"},
		"-h":           {0, "", "Usage: example\n"},
		"-nonsense":    {2, "", "not defined: -nonsense\nUsage: example\n"},
		"now":          {2, "", `: arguments ["now"]: 0 wanted`},
	} {
		cmd := testproc.Command(t, strings.Fields(args)...)
		cmd.Env = append(cmd.Env, "COLUMNS=40")
		out, stderr, status := testproc.Run(t, cmd)
		assert.Equal(t, want.status, status, args)
		assert.True(t, strings.HasPrefix(out, want.stdout), out)
		assert.Contains(t, stderr, want.stderr)
		testproc.Narrow(t, 40, out)
	}
}

// An example whose output cannot be written fails.
func TestOutputLost(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("a file that cannot be written to: ", err)
	}
	defer full.Close()
	cmd := testproc.Command(t)
	cmd.Stdout = full
	_, stderr, status := testproc.Run(t, cmd)
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "no space left on device")
}
