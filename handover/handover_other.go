//go:build !unix

package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// There is no rendezvous where no descriptor can be passed.

var errNoDescriptors = fmt.Errorf("%w: this system passes no descriptors between processes", errors.ErrUnsupported)

type rendezvous struct{}

func (*rendezvous) close(bool) {}

func (c Config) meet(context.Context, string) (*meeting, error) { return nil, errNoDescriptors }
func (c Config) meetingPlace() string                           { return "" }
func (p *Process) serveRendezvous()                             {}
func (l *link) giveUp()                                         {}
func stateOf(int) string                                        { return "" }

func adoptFiles(files []*os.File) ([]*socket, error) {
	if len(files) > 0 {
		return nil, errNoDescriptors
	}
	return nil, nil
}

func (s *socket) unlinkOnClose(bool) {}
func (s *socket) pending() bool      { return false }
func (s *socket) hide() error        { return errors.ErrUnsupported }

func addressInUse(error) bool                   { return false }
func removeStale(context.Context, request) bool { return false }
