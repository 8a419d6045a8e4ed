//go:build !unix

package group

const canRescue = false

func (g *Group) rescue() {}
