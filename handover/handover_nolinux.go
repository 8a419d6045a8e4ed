//go:build unix && !linux

package handover

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

const hasAbstract = false

// check has nothing to check: the folder was.
func (p place) check(*net.UnixConn) (peer, error) { return peer{uid: -1}, nil }

func checkAllMapped() error { return nil }

func netns(syscall.Conn) string { return "" }

func isThread(int, int) bool { return false }

func stateOf(int) string { return "" }

func hideTCP(*socket) error { return fmt.Errorf("%w on this system", errors.ErrUnsupported) }

// giveUp ends the wait for the previous process's agreement. A half-closed connection
// would not do: these systems discard what has been sent. A byte that is not expected
// makes the previous process refuse, and if it has just agreed that arrives soon.
func (l *link) giveUp() {
	_ = l.conn.SetDeadline(time.Now().Add(time.Second)) // that of send may have passed
	_, _ = l.conn.Write([]byte{0})                      // if that fails it has gone
}

// staleAfter is how long a Unix listener's file must refuse to be removed. These systems
// refuse also when a queue is full.
const staleAfter = time.Second
