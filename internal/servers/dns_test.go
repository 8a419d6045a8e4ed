package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.com/reuse/handover"
)

func serveDNS(ctx context.Context, p *handover.Process, l net.Listener, conns []net.PacketConn, h dns.Handler) error {
	if err := p.Ready(ctx); err != nil { // before the first read
		return err
	}
	left := left(ctx, p)
	var udp sync.WaitGroup
	for _, c := range conns {
		s := &dns.Server{PacketConn: c, Handler: h}
		s.NotifyStartedFunc = func() { context.AfterFunc(left, func() { _ = s.Shutdown() }) }
		udp.Go(func() { _ = s.ActivateAndServe() })
	}
	defer udp.Wait()
	return (&dns.Server{Listener: l, Handler: h}).ActivateAndServe() // Shutdown would drop queries
}

// answerDNS answers a question with the process id.
func answerDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Answer = []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
		Txt: []string{fmt.Sprint(os.Getpid())},
	}}
	time.Sleep(2 * time.Millisecond) // as a look-up takes
	_ = w.WriteMsg(m)                // an error is the client's
}

// ask asks one question. A UDP socket is connected, so it receives answers only from the
// address that it asked.
func ask(network, address string) error {
	client := dns.Client{Net: network, Timeout: patience}
	m, _, err := client.Exchange(new(dns.Msg).SetQuestion("example.com.", dns.TypeTXT), address)
	if err == nil && len(m.Answer) != 1 {
		err = errors.New("no answer")
	}
	return err
}

func TestDNS(t *testing.T) {
	t.Parallel()
	for server, networks := range map[string][]string{"dns": {"udp", "tcp"}, "dns4": {"udp"}} {
		for _, network := range networks {
			row := fmt.Sprintf("miekg/dns, %s, %d sockets", network, servers[server].udp)
			t.Run(row, func(t *testing.T) {
				t.Parallel()
				s := start(t, server)
				address := map[string]string{"udp": s.udp, "tcp": s.tcp}[network]
				_, port, _ := net.SplitHostPort(address)
				n := 1
				underLoad(t, s, row, func() func() error {
					n++
					at := net.JoinHostPort(fmt.Sprintf("127.0.0.%d", n), port)
					return func() error { return ask(network, at) }
				})
			})
		}
	}
}
