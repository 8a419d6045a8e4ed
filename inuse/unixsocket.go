package inuse

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

func isUnix(network string) bool {
	return network == "unix" || network == "unixgram" || network == "unixpacket"
}

// unix explains a bind of a Unix socket, on which options have no effect.
func (x *explainer) unix() error {
	name := x.local
	abstract := strings.HasPrefix(name, "@") && slices.Contains([]string{"linux", "android", "windows"}, runtime.GOOS) // elsewhere a path
	folder := filepath.Dir(name)
	_, folderErr := os.Stat(folder)
	info, err := os.Lstat(name)
	f := failureOf(x.err)
	switch {
	case len(name) > longestPath && (!abstract || len(name) > longestPath+1): // an abstract name has no NUL at its end
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
		x.unixInUse(name, abstract, !errors.Is(err, os.ErrNotExist))
	}
	return nil
}

// unixInUse explains a name that a socket has, or had. exists is about the file of a path.
// /proc/net/unix also lists the paths of files that were removed or replaced, so it counts
// for a path only if connect does not show that the file is stale.
func (x *explainer) unixInUse(name string, abstract, exists bool) {
	var live bool
	var err error
	if abstract {
		if x.Holders, err = unixHolders(x.ctx, name); err != nil {
			live, err = answers(name)
		}
		if likeLinux() { // each type has names of its own (source: unix_bind_abstract)
			x.Holders = slices.DeleteFunc(x.Holders, func(h Holder) bool { return h.Network != x.network })
		}
		live = live || len(x.Holders) > 0
		exists = live
	} else if exists {
		if live, err = answers(name); live || err != nil {
			x.Holders, _ = unixHolders(x.ctx, name)
		}
	}
	switch {
	case !exists && x.err != nil:
		x.say("Nothing has the name "+x.Address+" now.", "Try again.")
	case !exists:
		x.Free = true
		x.say("Nothing has the name " + x.Address + ".")
	case !live && err == nil:
		x.say(x.Address+" is the file of a socket that is closed: connect is refused.",
			"Remove the file. A Go listener does at Close; a process that is killed does not.")
	case !live:
		reason := fmt.Sprintf("Whether a process still listens on %s cannot be seen: %v.", x.Address, err)
		if len(x.Holders) > 0 {
			reason += fmt.Sprintf(" It may be %v.", x.Holders[0])
		}
		x.say(reason, "If none does, remove the file.")
	case len(x.Holders) == 0:
		x.say("A socket answers at "+x.Address+". Its process is not visible here.", "End the process, or use another name.")
	case x.Holders[0].PID == os.Getpid():
		x.say(x.heldBy(x.Holders[0])+".", "This process has the name already: use that socket, or close it.")
	default:
		x.say(x.heldBy(x.Holders[0])+".", "End the process, or use another name.")
	}
}

// answers reports whether a process has the socket of a path. The connect of a datagram
// socket shows it without an effect on a listener, which is of another type. gVisor always
// refuses it, so answers then tries the other types.
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
