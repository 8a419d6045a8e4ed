package semantics

import "slices"

// Oracle Solaris. Its source is closed. SO_REUSEADDR and SO_EXCLBIND are inferred
// from illumos, which has the same ancestor. SO_REUSEPORT, which illumos lacks, is known
// for the same address and user only.

func solarisBind(port Evidence) func(a, b Binding) Answer {
	return func(a, b Binding) Answer {
		known := Evidence{Inferred, "from illumos"}
		bothPort := a.Options.Has(Port) && b.Options.Has(Port)
		switch {
		case illumosExclusive(a, b) || !overlap(a, b) || !(a.Options | b.Options).Has(Port):
			return illumosBind(a, b).knownBy(known)
		case bothPort && a.Addr == b.Addr && a.User == b.User:
			return answer("", "both SO_REUSEPORT", "Sockets of one user may have the same address if both set SO_REUSEPORT.", port)
		case bothPort && a.Addr == b.Addr:
			return notKnown("user", "Whether SO_REUSEPORT compares users is unverified.")
		}
		return notKnown("SO_REUSEPORT", "What SO_REUSEPORT does with another address, or on one socket only, is unverified.")
	}
}

// solaris114Traffic: 11.4 balances, unless SO_REUSEADDR is also set.
func solaris114Traffic(to destination, sharing []Binding) Traffic {
	known := Evidence{Vendor, "libuv 98a4bab92, by an engineer of Oracle"}
	top := best(to.addr, sharing, ready(to), false)
	without := func(i int) bool { return !sharing[i].Options.Has(Port) }
	if len(top) < 2 || slices.ContainsFunc(top, without) || to.addr.IsMulticast() {
		t := illumosTraffic(to, sharing)
		if t.Evidence.Kind != Unknown {
			t.Evidence = Evidence{Inferred, "from illumos"}
		}
		return t
	}
	if slices.ContainsFunc(top, func(i int) bool { return sharing[i].Options.Has(Addr) }) {
		return Traffic{Rule: Rule{"SO_REUSEADDR", "SO_REUSEPORT does not balance while SO_REUSEADDR is set. Which socket gets the traffic is unverified."}}
	}
	return Traffic{Way: Spread, To: top, Evidence: known, Rule: Rule{"SO_REUSEPORT", "SO_REUSEPORT spreads over the sockets of one address, unless SO_REUSEADDR is also set."}}
}

func solaris114() System {
	s := illumos()
	s.name, s.title = Solaris114, "Solaris 11.4"
	inferred := Evidence{Inferred, "from illumos"}
	vendor := Evidence{Vendor, "setsockopt(3C); libuv 98a4bab92, by an engineer of Oracle"}
	s.options = []optionData{
		{Addr, "SO_REUSEADDR", "", inferred},
		{Port, "SO_REUSEPORT", "11; it balances from 11.4", vendor},
		{Excl, "SO_EXCLBIND", "", inferred},
	}
	s.bind, s.traffic = solarisBind(vendor), solaris114Traffic
	for i := range s.facts {
		s.facts[i].Evidence = inferred
	}
	return s
}

func solaris() System {
	s := solaris114()
	inferred := Evidence{Inferred, "from 11.4"}
	s.name, s.title = "solaris", "Solaris before 11.4"
	s.options[1] = optionData{Port, "SO_REUSEPORT", "11", inferred}
	s.bind = solarisBind(inferred)
	s.traffic = func(to destination, sharing []Binding) Traffic {
		t := illumosTraffic(to, sharing)
		if t.Evidence.Kind == Unknown || len(choose(sharing, func(b Binding) bool { return b.Options.Has(Port) })) > 1 {
			return Traffic{Rule: Rule{"SO_REUSEPORT", "SO_REUSEPORT does not spread connections before 11.4. Which socket gets them is unverified."}}
		}
		t.Evidence = Evidence{Inferred, "from illumos"}
		return t
	}
	return s
}
