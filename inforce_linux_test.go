package reuse_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// An option that is On is unsupported, or in force: what a second socket, another user
// and traffic do shows it. Linux and gVisor differ, and so does what is expected.
func TestInForce(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	inForce := 0
	for _, o := range all {
		for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"} {
			specific := "127.0.0.1"
			if network[3:] == "6" {
				specific = "::1"
			}
			wildcard := map[string]string{"": "", "4": "0.0.0.0", "6": "::"}[network[3:]]
			for i, address := range []string{specific + " 20001", wildcard + " 20002", specific + " 0"} {
				host, port, _ := strings.Cut(address, " ")
				t.Run(fmt.Sprintf("%v/%s %s", o, network, net.JoinHostPort(host, port)), func(t *testing.T) {
					x := trialOf{o, network, host, port, specific, i == 1}
					err := x.run(t)
					if !x.supported() {
						require.ErrorIs(t, err, errors.ErrUnsupported)
						return
					}
					require.NoError(t, err)
					inForce++
				})
			}
		}
	}
	assert.Equal(t, map[bool]int{false: 65, true: 53}[testproc.OnGVisor()], inForce, "of 90")
}

// A trialOf is one cell of the table.
type trialOf struct {
	o                   reuse.Option
	network, host, port string
	target              string // an address of the socket
	wildcard            bool
}

// supported says what this kernel has.
func (x trialOf) supported() bool {
	udp := x.network[0] == 'u'
	switch x.o {
	case reuse.DeferPort:
		return !udp && x.port == "0" && !testproc.OnGVisor()
	case reuse.Exclusive:
		return exclusiveHolds(x.network, net.JoinHostPort(x.host, x.port))
	}
	return !(testproc.OnGVisor() && udp && x.port == "0")
}

// run opens a socket with the option, or returns why not, and shows it to be in force.
func (x trialOf) run(t *testing.T) error {
	address := net.JoinHostPort(x.host, x.port)
	c := with(x.o, reuse.On)
	if x.o == reuse.DeferPort {
		return x.deferred(t)
	}
	s, at, err := open(t.Context(), c, x.network, address)
	if err != nil {
		return err
	}
	t.Cleanup(func() { s.Close() })
	x.port = portOf(at)
	others := []*testproc.Process{}
	for _, user := range users(t) {
		others = append(others, testproc.Start(t, "stranger", strconv.Itoa(user)))
	}
	switch {
	case x.o == reuse.Exclusive:
		go says(s, "owner")
		for _, other := range others {
			x.attack(t, other)
		}
	case x.o == reuse.Addr && x.network[0] == 't':
		x.restarts(t, s.(net.Listener))
	default:
		go says(s, "owner")
		x.shares(t, others)
	}
	return nil
}

// attack binds, in every way, what might get some of an exclusive socket's traffic.
func (x trialOf) attack(t *testing.T, other *testproc.Process) {
	tcp := x.network[:3]
	kinds, detours := []string{"-", "addr", "port", "addr,port"}, [][]string{
		{}, {tcp + "4 127.0.0.2"}, {tcp + "4 0.0.0.0"}, {tcp + "6 ::"}, {tcp + "4 127.0.0.2", tcp + "4 0.0.0.0"},
	}
	if testing.Short() {
		kinds, detours = []string{"port"}, [][]string{{tcp + "4 127.0.0.2", tcp + "4 0.0.0.0", tcp + "6 ::"}}
	}
	for _, options := range kinds {
		for _, device := range []string{"-", "lo"} {
			for _, detour := range detours {
				targets := []string{tcp + "4 127.0.0.1", tcp + "4 0.0.0.0", tcp + "6 ::1", tcp + "6 ::", tcp + " "}
				for _, step := range append(detour, targets...) {
					network, host, _ := strings.Cut(step, " ")
					dev := device
					if slices.Contains(detour, step) {
						dev = "-"
					}
					other.Ask(network, net.JoinHostPort(host, x.port), options, dev, "-1")
				}
				assert.Equal(t, []string{"owner"}, x.answers(t), "%s %s %v", options, device, detour)
				require.Equal(t, "ok", other.Ask("close"))
			}
		}
	}
}

// shares has others join, by the option, and the traffic be as it says.
func (x trialOf) shares(t *testing.T, others []*testproc.Process) {
	option := map[reuse.Option]string{reuse.Addr: "addr", reuse.Port: "port", reuse.PortLB: "port"}[x.o]
	address := net.JoinHostPort(x.host, x.port)
	for i, other := range others {
		assert.NotEqual(t, "ok", other.Ask(x.network, address, "-", "-", "-1"), "without the option")
		answer := other.Ask(x.network, address, option, "-", "-1")
		if i > 0 && option == "port" && !testproc.OnGVisor() {
			assert.NotEqual(t, "ok", answer, "another user")
			continue
		}
		require.Equal(t, "ok", answer)
		if x.o == reuse.Addr {
			assert.Equal(t, []string{"stranger"}, x.answers(t), "the newest")
		} else {
			for n := 0; len(x.answers(t)) < 2; n++ {
				require.Less(t, n, 50, "one of them gets everything")
			}
		}
		require.Equal(t, "ok", other.Ask("close"))
	}
}

// answers returns whose answers clients get.
func (x trialOf) answers(t *testing.T) []string {
	var cpus unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &cpus))
	cpu := 0
	for !cpus.IsSet(cpu) {
		cpu++
	}
	return answers(t, x.network[:3], net.JoinHostPort(x.target, x.port), cpu)
}

// restarts shows Addr on a TCP listener: a new one is admitted beside a connection of
// the old one. Without it on both it is refused.
func (x trialOf) restarts(t *testing.T, l net.Listener) {
	client, err := net.Dial("tcp", net.JoinHostPort(x.target, x.port))
	require.NoError(t, err)
	defer discard(client)
	server, err := l.Accept()
	require.NoError(t, err)
	defer discard(server)
	require.NoError(t, l.Close())
	for s, want := range map[reuse.Setting]error{reuse.Off: syscall.EADDRINUSE, reuse.On: nil} {
		err := bind(t.Context(), with(reuse.Addr, s), x.network, net.JoinHostPort(x.host, x.port))
		assert.ErrorIs(t, err, want)
	}
}

// deferred dials from two ephemeral ports to three destinations each.
func (x trialOf) deferred(t *testing.T) error {
	const portRange = "/proc/sys/net/ipv4/ip_local_port_range"
	if x.supported() {
		err := os.WriteFile(portRange, []byte("40000 40001"), 0)
		if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
			t.Skipf("the ports cannot be restricted: %v", err)
		}
		require.NoError(t, err)
		defer func() { require.NoError(t, os.WriteFile(portRange, []byte("32768 60999"), 0)) }()
	}
	for i := range 3 {
		remote := peer(t, x.network, net.JoinHostPort(x.target, strconv.Itoa(20010+i)))
		for range 2 {
			conn, err := reuse.Config{DeferPort: reuse.On}.Dial(t.Context(), x.network, net.JoinHostPort(x.host, x.port), remote)
			if err != nil {
				return err
			}
			t.Cleanup(func() { discard(conn) })
		}
	}
	return nil
}
