// Package reuse sets the socket options that decide who may share an address.
package reuse
