package gateway

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
)

// proxySignature begins a header of the PROXY protocol, version 2.
var proxySignature = []byte("\r\n\r\n\x00\r\nQUIT\n")

const (
	maxProxyHeader = 2048 // after the first 16 bytes; the addresses, and extensions nobody needs here
	proxyLocal     = 0x20
	proxyProxied   = 0x21
	proxyTCP4      = 0x11
	proxyTCP6      = 0x21
)

// readProxyHeader reads the header with which a load balancer says whom it
// speaks for. The address is invalid when it speaks for itself, as in its own
// checks. (haproxy's proxy-protocol.txt, section 2.2.)
//
//	signature 12 | version 2, command | family, transport | length 2 | source, destination | …
func readProxyHeader(r io.Reader) (netip.AddrPort, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, err
	}
	n := int(binary.BigEndian.Uint16(head[14:]))
	if !bytes.Equal(head[:12], proxySignature) || n > maxProxyHeader {
		return netip.AddrPort{}, violation("expected a PROXY protocol version 2 header from this address")
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.AddrPort{}, err
	}
	size := map[byte]int{proxyTCP4: 4, proxyTCP6: 16}[head[13]]
	switch {
	case head[12] == proxyLocal:
		return netip.AddrPort{}, nil
	case head[12] != proxyProxied || size == 0 || n < 2*size+4:
		return netip.AddrPort{}, violation("PROXY protocol header of an unknown kind")
	}
	a, _ := netip.AddrFromSlice(body[:size]) // 4 or 16 bytes are always an address
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(body[2*size:])), nil
}
