//go:build !unix

package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// There is no rendezvous where no descriptor can be passed.

type place struct{}

func (place) check(*net.UnixConn) (peer, error) { return peer{}, errNoDescriptors }

type rendezvous struct {
	place    place
	listener *net.UnixListener
	lock     *os.File
}

var errNoDescriptors = fmt.Errorf("%w: this system passes no descriptors between processes", errors.ErrUnsupported)

func (c Config) meet(context.Context, string) (*meeting, error) { return nil, errNoDescriptors }
func (c Config) meetingPlace() string                           { return "" }

func (r *rendezvous) own()               {}
func (r *rendezvous) keepSpare()         {}
func (r *rendezvous) releaseSpare() bool { return false }
func (r *rendezvous) close(bool)         {}

func (l *link) send(message) error                         { return errNoDescriptors }
func (l *link) sendDescriptor(message, syscall.Conn) error { return errNoDescriptors }
func (l *link) open() bool                                 { return false }

const staleAfter = 0

func (l *link) giveUp() {}

func (s *socket) ownPath()               {}
func (s *socket) leavePath()             {}
func (s *socket) setNonblock() error     { return errNoDescriptors }
func (s *socket) pending() (bool, error) { return false, nil }
func (s *socket) hide() error            { return errors.ErrUnsupported }

func adoptFiles(files []*os.File) ([]*socket, error) {
	if len(files) > 0 {
		return nil, errNoDescriptors
	}
	return nil, nil
}

func isV6Only(syscall.RawConn) (bool, error) { return false, nil }
func hello(string, syscall.Conn) message     { return message{} }
func isThread(int, int) bool                 { return false }
func stateOf(int) string                     { return "" }
func addressInUse(error) bool                { return false }
func connectionRefused(error) bool           { return false }
