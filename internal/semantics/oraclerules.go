package semantics

import "slices"

// Oracle Solaris. Its source is closed. SO_REUSEADDR and SO_EXCLBIND are inferred
// from illumos, which has the same ancestor. SO_REUSEPORT, which illumos lacks, is known
// for the same address and user only.

func solarisBind(illumos func(a, b Binding) Answer, port Evidence) func(a, b Binding) Answer {
	return func(a, b Binding) Answer {
		bothPort := a.Options.Has(Port) && b.Options.Has(Port)
		switch {
		case illumosExclusive(a, b) || !overlap(a, b) || !(a.Options | b.Options).Has(Port):
			return illumos(a, b)
		case bothPort && a.Addr == b.Addr && a.User == b.User:
			return answer("", "both SO_REUSEPORT", "Sockets of one user may have the same address if both set SO_REUSEPORT.", port)
		case bothPort && a.Addr == b.Addr:
			return notKnown("user", "Whether SO_REUSEPORT compares users is unverified.")
		}
		return notKnown("SO_REUSEPORT", "What SO_REUSEPORT does with another address, or on one socket only, is unverified.")
	}
}

func solaris114() System {
	vendor := Evidence{Vendor, "setsockopt(3C); libuv 98a4bab92, by an engineer of Oracle"}
	s := illumos().inferred(Solaris114, "Solaris 11.4", Evidence{Inferred, "from illumos"})
	s.options[Port] = optionData{"SO_REUSEPORT", "11; it balances from 11.4", vendor}
	s.bind = solarisBind(s.bind, vendor)
	illumos := s.traffic
	s.traffic = func(to destination, sharing []Binding) Traffic {
		top := best(to.addr, sharing, ready(to))
		without := func(i int) bool { return !sharing[i].Options.Has(Port) }
		switch {
		case len(top) < 2 || slices.ContainsFunc(top, without) || to.addr.IsMulticast():
			return illumos(to, sharing)
		case slices.ContainsFunc(top, func(i int) bool { return sharing[i].Options.Has(Addr) }):
			return Traffic{Rule: Rule{"SO_REUSEADDR", "SO_REUSEPORT does not balance while SO_REUSEADDR is set. Which socket gets the traffic is unverified."}}
		}
		return Traffic{Way: Spread, To: top, Evidence: Evidence{Vendor, "libuv 98a4bab92, by an engineer of Oracle"},
			Rule: Rule{"SO_REUSEPORT", "SO_REUSEPORT spreads over the sockets of one address, unless SO_REUSEADDR is also set."}}
	}
	return s
}

func solaris() System {
	from114 := Evidence{Inferred, "from 11.4"}
	s := illumos().inferred("solaris", "Solaris before 11.4", Evidence{Inferred, "from illumos"})
	s.options[Port] = optionData{"SO_REUSEPORT", "11", from114}
	s.bind = solarisBind(s.bind, from114)
	illumos := s.traffic
	s.traffic = func(to destination, sharing []Binding) Traffic {
		if len(choose(sharing, func(b Binding) bool { return b.Options.Has(Port) })) > 1 {
			return Traffic{Rule: Rule{"SO_REUSEPORT", "SO_REUSEPORT does not spread connections before 11.4. Which socket gets them is unverified."}}
		}
		return illumos(to, sharing)
	}
	return s
}
