package gateway

import (
	"bytes"
	"testing"
)

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x04\xd2\x15\x38"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"))
	f.Add([]byte("PROXY TCP4"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readProxyHeader(bytes.NewReader(b))
		if a.IsValid() && err != nil {
			t.Errorf("%v beside %v", a, err)
		}
	})
}
