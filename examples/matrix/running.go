//go:build !android && !ios

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
)

// patience is for everything, which takes a fraction of a second.
const patience = time.Minute

// tries is how often a pair is bound before a difference is believed: a port that
// was free may be somebody's a moment later.
const tries = 3

// measured binds every pair. The second socket is made in a second process if two
// is set, as another user if uid is not negative.
func measured(two bool, uid int) (t *table, err error) {
	release, version, err := uname()
	if err != nil {
		return nil, fmt.Errorf("%s: %w; -os shows the rules of any system", runtime.GOOS, err)
	}
	s, err := semantics.On(runtime.GOOS, release, version)
	if err != nil {
		return nil, err
	}
	t = newTable(s)
	t.Measured = true
	t.System = strings.TrimSpace(runtime.GOOS + " " + release + impostor())
	t.How = "each pair of sockets was made by one process."
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	first := os.Geteuid()
	second := first
	var binder measure.Binder = measure.Here{}
	if two || uid >= 0 {
		p, failed := startPeer(ctx, uid)
		if failed != nil {
			return nil, failed
		}
		defer func() { err = errors.Join(err, p.close()) }()
		binder = p
		t.How = "the second socket of each pair was made by a second process."
		if uid >= 0 {
			second = uid
			t.How = fmt.Sprintf("the second socket of each pair was made by user %d, the first by user %d.", second, first)
		}
	}
	all := measure.Pairs(s)
	pairs, missing := measure.Usable(all)
	if len(pairs) == 0 {
		return nil, fmt.Errorf("nothing can be bound here: %w", missing[measure.Specific])
	}
	t.Absent = absent(all, missing)
	for _, p := range pairs {
		r, _ := ask(s, p, first, second)
		r.OS, r.Release = runtime.GOOS, release
		if err := r.bind(ctx, p, binder); err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, r)
	}
	return t, nil
}

// bind finds out the outcome.
func (r *row) bind(ctx context.Context, p measure.Pair, second measure.Binder) (err error) {
	for range tries {
		if r.Outcome, err = measure.Measure(ctx, p, second); err != nil {
			return fmt.Errorf("%s: %w", r.sockets(), err)
		}
		if !r.differs() {
			return nil
		}
	}
	return nil
}

// absent says which addresses of the pairs are left out, and why.
func absent(pairs []measure.Pair, missing map[measure.Address]error) (list []string) {
	var used []measure.Address
	for _, p := range pairs {
		for _, a := range []measure.Address{p.First, p.Second} {
			if !slices.Contains(used, a) {
				used = append(used, a)
			}
		}
	}
	anySix := slices.ContainsFunc(used, func(a measure.Address) bool { return a.IPv6() && missing[a] == nil })
	for _, a := range used {
		err := missing[a]
		if err == nil || a.IPv6() && !anySix && a != measure.Specific6 {
			continue
		}
		what, why := address(a), err.Error()
		if a.IPv6() && !anySix {
			what = "IPv6, which is not here"
		}
		var sys *os.SyscallError
		if errors.As(err, &sys) {
			why = sys.Error()
		}
		list = append(list, what+" ("+why+")")
	}
	return list
}

// asSecond is set in the environment of the second process, to the user that it
// is to become, or -1.
const asSecond = "REUSE_MATRIX_SECOND"

const ready = "ready"

// second is the second process. It says that it is ready, or why it cannot be, and
// makes sockets until its standard input ends.
func second(as string) int {
	uid, err := strconv.Atoi(as)
	if err == nil && uid >= 0 {
		err = measure.Become(uid)
	}
	if err != nil {
		fmt.Println(err)
		return 2
	}
	fmt.Println(ready)
	if err := measure.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "matrix: the second process: %v\n", err)
		return 2
	}
	return 0
}

// A peer is a second process.
type peer struct {
	*measure.Peer
	cmd   *exec.Cmd
	stdin io.Closer
}

func startPeer(ctx context.Context, uid int) (*peer, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), asSecond+"="+strconv.Itoa(uid))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start a second process: %w", err)
	}
	in := bufio.NewReader(stdout)
	p := &peer{measure.NewPeer(stdin, in), cmd, stdin}
	line, err := in.ReadString('\n')
	if line = strings.TrimSpace(line); line == ready {
		return p, nil
	}
	if line == "" {
		return nil, errors.Join(errors.New("the second process does not answer"), err, p.close())
	}
	_ = p.close() // it has said more than its status does
	return nil, fmt.Errorf("-uid %d: %s; only root can become another user, on Unix systems", uid, line)
}

func (p *peer) close() error { return errors.Join(p.stdin.Close(), p.cmd.Wait()) }
