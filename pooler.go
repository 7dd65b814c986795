package tarn

import "net/netip"

// PoolerHost is the address at which the endpoint's pooler is reached: the
// endpoint's own loopback address with 64 added to its second number, so that
// 127.70.3.5 has 127.134.3.5 beside it. Endpoints get addresses from
// 127.64.0.0 to 127.127.255.255 only, so no two of either kind are the same.
// It is "" for an address that is none of those.
func (e Endpoint) PoolerHost() string {
	a, err := netip.ParseAddr(e.Host)
	if err != nil || !a.Is4() {
		return ""
	}
	b := a.As4()
	if b[0] != 127 || b[1] < 64 || b[1] > 127 {
		return ""
	}
	b[1] += 64
	return netip.AddrFrom4(b).String()
}

// PooledHost is the endpoint's address whose pooler is reached at a; "" = a is no
// pooler's address.
func PooledHost(a netip.Addr) string {
	if !a.Is4() {
		return ""
	}
	b := a.As4()
	b[1] -= 64
	if host := netip.AddrFrom4(b).String(); (Endpoint{Host: host}).PoolerHost() == a.String() {
		return host
	}
	return ""
}

// PoolerSuffix, behind an endpoint's UID, names its pooler.
const PoolerSuffix = "-pooler"

// InstancePrefix, before a project's UID, is the host name by which the
// Provisioned API's programs reach its default endpoint.
const InstancePrefix = "instance-"

// Address is what clients connect to: the name in DNS when there is a domain,
// the loopback address otherwise.
func (e Endpoint) Address() string {
	if e.Domain == "" {
		return e.Host
	}
	return e.UID + "." + e.Domain
}

// PoolerAddress is the same of the endpoint's pooler.
func (e Endpoint) PoolerAddress() string {
	if e.Domain == "" {
		return e.PoolerHost()
	}
	return e.UID + PoolerSuffix + "." + e.Domain
}
