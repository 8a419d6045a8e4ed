package semantics

import "slices"

// Oracle Solaris. Its source is closed. SO_REUSEADDR and SO_EXCLBIND are inferred
// from the ancestor it shares with illumos; SO_REUSEPORT, which illumos lacks, is
// known for the same address and user only.

func solarisSecond(port Known) func(a, b Binding) Answer {
	return func(a, b Binding) Answer {
		known := Known{Inferred, "from illumos"}
		bothPort := a.Options.Has(Port) && b.Options.Has(Port)
		switch {
		case illumosExclusive(a, b) || !overlap(a, b) || !(a.Options | b.Options).Has(Port):
			return as(known, illumosSecond(a, b))
		case bothPort && a.Addr == b.Addr && a.User == b.User:
			return answer("", "both SO_REUSEPORT", "Sockets of one user may have the same address if both set SO_REUSEPORT.", port)
		case bothPort && a.Addr == b.Addr:
			return notKnown("user", "Whether SO_REUSEPORT looks at the user is not known.")
		}
		return notKnown("SO_REUSEPORT", "What SO_REUSEPORT does beside another address, or on one socket only, is not known.")
	}
}

// solaris114Traffic: 11.4 balances, unless SO_REUSEADDR is set, too.
func solaris114Traffic(to destination, sharing []Binding) Traffic {
	known := Known{Vendor, "libuv 98a4bab92, by an engineer of Oracle"}
	ready := func(b Binding) bool { return to.proto == UDP || b.State == Listening }
	top := best(to.addr, sharing, ready, specificFirst(to.addr))
	without := func(i int) bool { return !sharing[i].Options.Has(Port) }
	if len(top) < 2 || slices.ContainsFunc(top, without) || to.addr.IsMulticast() {
		t := illumosTraffic(to, sharing)
		if t.Known.How != Unknown {
			t.Known = Known{Inferred, "from illumos"}
		}
		return t
	}
	if slices.ContainsFunc(top, func(i int) bool { return sharing[i].Options.Has(Addr) }) {
		return Traffic{Rule: Rule{"SO_REUSEADDR", "SO_REUSEPORT does not balance while SO_REUSEADDR is set; who gets the traffic is not known."}}
	}
	return Traffic{Way: Spread, To: top, Known: known, Rule: Rule{"SO_REUSEPORT", "SO_REUSEPORT spreads over the sockets of one address, unless SO_REUSEADDR is set, too."}}
}

func solaris114() System {
	s := illumos()
	s.name, s.title = Solaris114, "Solaris 11.4"
	inferred := Known{Inferred, "from illumos"}
	vendor := Known{Vendor, "setsockopt(3C); libuv 98a4bab92, by an engineer of Oracle"}
	s.options = []optionData{
		{Addr, "SO_REUSEADDR", "", inferred},
		{Port, "SO_REUSEPORT", "11; it balances from 11.4", vendor},
		{Excl, "SO_EXCLBIND", "", inferred},
	}
	s.second, s.listen, s.traffic = solarisSecond(vendor), listens(inferred), solaris114Traffic
	for i := range s.facts {
		s.facts[i].Known = inferred
	}
	return s
}

func solaris() System {
	s := solaris114()
	inferred := Known{Inferred, "from 11.4"}
	s.name, s.title = "solaris", "Solaris before 11.4"
	s.options[1] = optionData{Port, "SO_REUSEPORT", "11", inferred}
	s.second = solarisSecond(inferred)
	s.traffic = func(to destination, sharing []Binding) Traffic {
		t := illumosTraffic(to, sharing)
		if t.Known.How == Unknown || len(choose(sharing, func(b Binding) bool { return b.Options.Has(Port) })) > 1 {
			return Traffic{Rule: Rule{"SO_REUSEPORT", "It does not spread connections before 11.4; who gets them is not known."}}
		}
		t.Known = Known{Inferred, "from illumos"}
		return t
	}
	return s
}
