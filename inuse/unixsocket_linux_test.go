package inuse

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// These are not parallel if a child that another test forks might have their socket until
// it calls exec.

// listenUnix listens, and leaves the file when it is closed.
func listenUnix(t *testing.T, network, name string) io.Closer {
	t.Helper()
	l, err := bindAs(reuse.Config{}, network, name)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	if l, ok := l.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	return l
}

// A Unix socket's name is stale, in use, too long, in no folder, or of another file.
func TestUnixNames(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	path := in("a socket")
	require.NoError(t, os.WriteFile(in("file"), nil, 0o600))
	networks := []string{"unix", "unixpacket", "unixgram"}
	for _, network := range networks {
		explained := func(name string) *Report {
			t.Helper()
			r := refused(t, reuse.Config{}, network, name)
			assert.Equal(t, r, checked(t, reuse.Config{}, network, name))
			return r
		}
		assert.True(t, checked(t, reuse.Config{}, network, path).Free)
		for _, name := range []string{path, fmt.Sprintf("@%0107d", os.Getpid())} { // the longest
			l := listenUnix(t, network, name)
			if c, err := net.Dial(network, name); err == nil { // it has the name too
				defer c.Close()
			}
			r := explained(name)
			assert.Equal(t, []Holder{{Network: network, Path: name, State: map[bool]string{true: bound, false: listen}[network == "unixgram"],
				UID: -1, PID: os.Getpid(), Command: ownName(t)}}, r.Holders)
			assert.Contains(t, r.Reason, name+" is held by this process, pid ")
			assert.Equal(t, []string{"This process has the name already: use that socket, or close it."}, r.Advice)
			assert.Equal(t, r.Holders, holdersOf(t, network, name))
			assert.Empty(t, holdersOf(t, network, "socket"))
			for _, other := range networks { // an abstract name is free for another type
				if other != network && name != path && likeLinux() {
					assert.True(t, checked(t, reuse.Config{}, other, name).Free)
					binds(t, reuse.Config{}, other, name)
				}
			}
			require.NoError(t, l.Close())
		}
		for _, tt := range []struct{ name, reason, advice string }{
			{path, path + " is the file of a socket that is closed: connect is refused.", "Remove the file"},
			{in("absent/s"), "The folder " + in("absent") + " does not exist.", "Make it before Listen"},
			{in(strings.Repeat("x", 108-len(folder))), "The path has 109 bytes, and a Unix socket's can have 107 here.", "Use a shorter path"},
			{in("file"), in("file") + " is a file and no socket.", "Use another path"},
		} {
			r := explained(tt.name)
			assert.Equal(t, tt.reason, r.Reason)
			says(t, r, "^"+tt.advice)
		}
		require.NoError(t, os.Remove(path))
	}
}

// A listener whose file was removed does not have the path: a file that another one left
// there is stale.
func TestUnixFileRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listenUnix(t, "unix", path)
	require.NoError(t, os.Remove(path))
	r := checked(t, reuse.Config{}, "unix", path)
	assert.True(t, r.Free, "%v", r)
	assert.Empty(t, r.Holders)

	require.NoError(t, listenUnix(t, "unix", path).Close())
	r = refused(t, reuse.Config{}, "unix", path)
	assert.Equal(t, path+" is the file of a socket that is closed: connect is refused.", r.Reason)
	assert.Empty(t, r.Holders)
	says(t, r, "^Remove the file")
}

// Missing permissions are reported. If connect is not permitted, the report names the
// listener that may have the path.
func TestUnixPermissions(t *testing.T) {
	needUsers(t)
	folder := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(folder), 0o755))
	require.NoError(t, os.Chmod(folder, 0o755))
	path := filepath.Join(folder, "s")
	a := question{UID: nobody, Places: [][2]string{{"unix", path}}}.in(t, nil)[0]
	assert.Equal(t, "This process, uid 65534, may not make a file in "+folder+".", a.Refused.Reason)
	assert.Equal(t, a.Refused, a.Checked)

	require.NoError(t, os.Chmod(folder, 0o777))
	listenUnix(t, "unix", path)
	require.NoError(t, os.Chmod(path, 0o700))
	r := refusedToNobody(t, "unix", path)
	assert.Contains(t, r.Reason, "Whether a process still listens on "+path+" cannot be seen: ")
	assert.Contains(t, r.Reason, " It may be a process that is not visible, listening on "+path+".")
	assert.Equal(t, []string{"If none does, remove the file."}, r.Advice)
}

// Check leaves no connection in a listener's accept queue.
func TestUnixListenerIsLeftAlone(t *testing.T) {
	t.Parallel()
	if !likeLinux() {
		t.Skip("gVisor needs a connection to see that the socket is live")
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), fmt.Sprint("@inuse", os.Getpid())} {
		l := listenUnix(t, "unix", name).(net.Listener)
		assert.False(t, checked(t, reuse.Config{}, "unix", name).Free)
		c, err := net.Dial("unix", name)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		first, err := l.Accept()
		require.NoError(t, err)
		defer first.Close()
		_, err = first.Read(make([]byte, 1))
		require.NoError(t, err, name)
	}
}
