package inuse

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func isUnix(network string) bool {
	return network == "unix" || network == "unixgram" || network == "unixpacket"
}

// unix explains a bind of a Unix socket, which no option changes.
func (x *explainer) unix() error {
	name, abstract := x.local, strings.HasPrefix(x.local, "@")
	folder := filepath.Dir(name)
	_, folderErr := os.Stat(folder)
	info, err := os.Lstat(name)
	f := failureOf(x.err)
	switch {
	case len(name) > longestPath:
		x.say(fmt.Sprintf("The path has %d bytes, and a Unix socket's can have %d here.", len(name), longestPath),
			"Use a shorter path, or one that is relative to the working directory.")
	case !abstract && errors.Is(folderErr, os.ErrNotExist):
		x.say("The folder "+printable(folder)+" does not exist.", "Make it before Listen, as os.MkdirAll does.")
	case f == denied, x.err == nil && !abstract && err != nil && !writable(folder):
		x.say(fmt.Sprintf("This process, uid %d, may not make a file in %s.", os.Geteuid(), printable(folder)),
			"Give this user the folder, or use another one.")
	case x.err != nil && f != inUse:
		return x.unexplained()
	case !abstract && err == nil && info.Mode()&os.ModeSocket == 0:
		x.say(x.Address+" is a file and no socket.", "Use another path.")
	default:
		x.unixInUse(name, abstract, !abstract && errors.Is(err, os.ErrNotExist))
	}
	return nil
}

// unixInUse explains a name that a socket has, or had if it is a path. absent says that the
// path has no file. /proc/net/unix shows a path of which the file was removed, or replaced,
// so it counts for a path only where connect does not show that the file is stale.
func (x *explainer) unixInUse(name string, abstract, absent bool) {
	var live bool
	var err, lookErr error
	if abstract {
		if x.Holders, lookErr = unixHolders(x.ctx, name); lookErr != nil {
			live, err = answers(name)
		}
		if likeLinux() { // each type has names of its own (source: unix_bind_abstract)
			x.Holders = slices.DeleteFunc(x.Holders, func(h Holder) bool { return h.Network != x.network })
		}
		live = live || len(x.Holders) > 0
		absent = !live
	} else if !absent {
		if live, err = answers(name); live || err != nil {
			x.Holders, lookErr = unixHolders(x.ctx, name)
		}
	}
	reason, advice := "A socket answers at "+x.Address+". Its process is not visible here.", "End the process, or use another name."
	switch {
	case absent && x.err != nil:
		reason, advice = "Nothing has the name "+x.Address+" now.", "Try again."
	case absent:
		x.Free = true
		x.say("Nothing has the name " + x.Address + ".")
		return
	case !live && err != nil:
		reason, advice = fmt.Sprintf("Whether a process still listens on %s cannot be seen: %v.", x.Address, err), "If none does, remove the file."
		if len(x.Holders) > 0 {
			reason += fmt.Sprintf(" It may be %v.", x.Holders[0])
		}
	case !live:
		reason, advice = x.Address+" is the file of a socket that is closed: connect is refused.",
			"Remove the file. A Go listener does at Close; a process that is killed does not."
	case len(x.Holders) == 0 && lookErr != nil:
		reason = fmt.Sprintf("A socket answers at %s. Its process cannot be seen: %v.", x.Address, lookErr)
	case len(x.Holders) > 0:
		reason = fmt.Sprintf("%s is held by %v.", x.Address, x.Holders[0])
		if x.Holders[0].PID == os.Getpid() {
			advice = "This process has the name already: use that socket, or close it."
		}
	}
	x.say(reason, advice)
}

// answers reports whether a process has the socket of a path. A connect of a datagram
// socket shows it without any effect on a listener, which is of another type. gVisor
// refuses that one always, so the other types are tried then.
func answers(path string) (live bool, err error) {
	for _, network := range []string{"unixgram", "unixpacket", "unix"} {
		c, e := net.Dial(network, path)
		if e == nil {
			return true, c.Close()
		}
		switch f := failureOf(e); {
		case f == otherType && network == "unixgram":
			return true, nil
		case f == otherType || f == notListening:
			err = nil
		case network == "unix":
			err = e
		}
	}
	return false, err
}
