package handover

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// The versions of the protocol that this library speaks. Two programs may contain
// different versions of it, so a change that an older one would misunderstand raises
// the newest, and testdata/frames.golden pins what is sent. Unknown fields are ignored.
const (
	oldestVersion = 1
	newestVersion = 1
)

const maxFrame = 64 << 10

// The types of messages, in the order in which they are sent.
const (
	typeHello      = "hello"      // both, first: version, process, network namespace
	typeWait       = "wait"       // current: another process is about to succeed
	typeEnding     = "ending"     // current: it ends without a successor
	typeRendezvous = "rendezvous" // current: with the descriptor of the socket to meet at
	typeLock       = "lock"       // current: with the descriptor of the lock file, if there is one
	typeSocket     = "socket"     // current: with the descriptor of a socket
	typeEnd        = "end"        // current: these were all
	typeReady      = "ready"      // newcomer: it uses the sockets in Keep
	typeGoing      = "going"      // current: the commit
	typeStopped    = "stopped"    // current: its listeners are closed
)

// A message is a frame: its length in four bytes, most significant first, and JSON.
type message struct {
	Type     string `json:"type"`
	Versions [2]int `json:"versions,omitzero"` // hello: oldest and newest
	Process  string `json:"process,omitempty"` // hello: a random name
	PID      int    `json:"pid,omitempty"`     // hello: the sender's; wait: of the one that is waited for
	NetNS    string `json:"netns,omitempty"`   // hello: the network namespace, empty if unknown
	ID       int    `json:"id,omitempty"`      // socket: its number in this process
	Network  string `json:"network,omitempty"` // socket: as requested
	Address  string `json:"address,omitempty"` // socket: as requested
	Files    bool   `json:"files,omitempty"`   // socket: a parent holds it
	Keep     []int  `json:"keep,omitempty"`    // ready: IDs
}

func (m message) encode() []byte {
	text, _ := json.Marshal(m) // strings and numbers cannot fail
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

func readMessage(r io.Reader) (m message, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return m, fmt.Errorf("a message of %d bytes is too long", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("a message is no JSON: %w", err)
	}
	return m, nil
}

// checkVersions fails if there is no version that both sides speak.
func (m message) checkVersions() error {
	if m.Versions[1] < oldestVersion || m.Versions[0] > newestVersion {
		return fmt.Errorf("it speaks versions %d to %d of the protocol, this one %d to %d", m.Versions[0], m.Versions[1], oldestVersion, newestVersion)
	}
	return nil
}
