package tarn

import (
	"net/netip"
	"slices"
)

// MaxAllowed is how many networks a project's list of allowed ones may have.
const MaxAllowed = 100

// ParseAllowed reads networks from which a project may be connected to: an
// address (10.1.2.3) or a network in CIDR notation (10.1.0.0/16). The answer
// is sorted and names none twice.
func ParseAllowed(list []string) ([]netip.Prefix, error) {
	if len(list) > MaxAllowed {
		return nil, Invalid("%d allowed networks: at most %d can be kept", len(list), MaxAllowed)
	}
	var all []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil || a.Zone() != "" {
				return nil, Invalid("allowed network %q is no IP address and no network", s).WithHint("write 10.1.2.3, 10.1.0.0/16 or 2001:db8::/32")
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			return nil, Invalid("allowed network %q: write IPv4 as such", s)
		}
		all = append(all, p.Masked())
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(all), nil
}

// Allows says whether one may come from an address; an empty list allows all.
func Allows(list []netip.Prefix, from netip.Addr) bool {
	from = from.Unmap().WithZone("")
	return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(from) })
}
