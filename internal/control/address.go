package control

import (
	"context"
	"fmt"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Every endpoint has a loopback address of its own, so that clients reach it
// on the usual port without DNS. A workspace's addresses begin at
// 127.(64+a).b.2 of a block chosen at random, which keeps two workspaces on
// one computer apart, and go on through 127.(64+a).*.2 to 254.
//
//	block  = a<<8 | b    a < 64, b < 256
//	number = 1, 2, 3 … addresses
const (
	hostsPerNet = 253
	addresses   = 256 * hostsPerNet
)

func newBlock() int { return int(random() % (64 << 8)) }

func address(block, number int) string {
	a, b, n := block>>8, block&0xff, number-1
	return fmt.Sprintf("127.%d.%d.%d", 64+a, (b+n/hostsPerNet)%256, 2+n%hostsPerNet)
}

// takeAddress finds an address that no endpoint has. Addresses go around, so
// that one given back is not soon another's: a client may still hold it.
func takeAddress(ctx context.Context, tx *controldb.Tx) (string, error) {
	_, block, err := controldb.GetWorkspace(ctx, tx)
	if err != nil {
		return "", err
	}
	for range addresses {
		n, err := controldb.NextAddress(ctx, tx, addresses)
		if err != nil {
			return "", err
		}
		host := address(block, n)
		taken, err := controldb.HostTaken(ctx, tx, host)
		if err != nil || !taken {
			return host, err
		}
	}
	return "", tarn.Conflict("all %d endpoint addresses of the workspace are taken", addresses)
}
