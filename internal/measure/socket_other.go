//go:build !unix && !windows

package measure

import (
	"errors"
	"net/netip"

	"example.com/reuse/internal/semantics"
)

const inUse = "EADDRINUSE"

// js, wasip1 and plan9: there are no sockets with options to measure.
type socket struct{}

func open(semantics.Proto, bool) (socket, error) { return socket{}, errors.ErrUnsupported }

func (socket) v6only(bool) error             { return errors.ErrUnsupported }
func (socket) set(semantics.Option) error    { return errors.ErrUnsupported }
func (socket) bind(netip.Addr, uint16) error { return errors.ErrUnsupported }
func (socket) listen() error                 { return errors.ErrUnsupported }
func (socket) close() error                  { return nil }
func (socket) port() (uint16, error)         { return 0, errors.ErrUnsupported }

func errnoName(error) string { return "" }

// Become fails: there are no users here.
func Become(int) error { return errors.ErrUnsupported }
