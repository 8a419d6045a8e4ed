package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

type request struct {
	Pair Pair
	Port uint16
}

type reply struct{ Outcome, Error string }

// Serve makes second bindings for a Peer in another process: it reads requests
// and answers each, until in ends. For another user's bindings, start the process
// as that user, or call Become in it first.
func Serve(in io.Reader, out io.Writer) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var req request
		if err := dec.Decode(&req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		outcome, err := Here{}.Bind(context.Background(), req.Pair, req.Port)
		r := reply{Outcome: outcome}
		if err != nil {
			r.Error = err.Error()
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

// A Peer is a process that runs Serve. Its bindings are made one at a time.
type Peer struct {
	mu  sync.Mutex
	out *json.Encoder
	in  *bufio.Reader
}

// NewPeer returns the peer at the other end of two pipes: to its standard input,
// and from its standard output. They stay the caller's; closing the first ends
// Serve.
func NewPeer(to io.Writer, from io.Reader) *Peer {
	return &Peer{out: json.NewEncoder(to), in: bufio.NewReader(from)}
}

// Bind waits for the peer's answer. It does not watch ctx meanwhile: a caller
// that gives up kills the process.
func (p *Peer) Bind(ctx context.Context, pair Pair, port uint16) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.out.Encode(request{pair, port}); err != nil {
		return "", fmt.Errorf("ask the other process: %w", err)
	}
	line, err := p.in.ReadBytes('\n')
	if err != nil {
		return "", fmt.Errorf("wait for the other process: %w", err)
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return "", fmt.Errorf("the other process: %w", err)
	}
	if r.Error != "" {
		return "", fmt.Errorf("in the other process: %s", r.Error)
	}
	return r.Outcome, nil
}
