package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// checksum is <version>.crc: what the actions up to a version add up to, for
// readers that want to know without adding up. Fields that are optional and
// that we leave out are not wrong.
type checksum struct {
	TxnID             string          `json:"txnId,omitempty"`
	Bytes             int64           `json:"tableSizeBytes"`
	Files             int64           `json:"numFiles"`
	Metadatas         int64           `json:"numMetadata"`
	Protocols         int64           `json:"numProtocol"`
	InCommitTimestamp *int64          `json:"inCommitTimestampOpt,omitempty"`
	Metadata          *metadataAction `json:"metadata"`
	Protocol          *protocolAction `json:"protocol"`
}

func checksumName(version int64) string { return fmt.Sprintf("%s%020d.crc", logFolder, version) }

// putChecksum writes the checksum of a version that stands already.
func (t *place) putChecksum(ctx context.Context, version int64, c checksum) error {
	c.Metadatas, c.Protocols = 1, 1
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return t.store.Put(ctx, t.key(checksumName(version)), bytes.NewReader(b))
}

// checksum adds up the base and what the commit changed.
func (x *Tx) checksum(actions []action) checksum {
	c := checksum{Metadata: x.base.state.metadata, Protocol: x.base.state.protocol, Files: int64(len(x.base.state.files)), Bytes: x.base.Size()}
	for _, a := range actions {
		switch {
		case a.CommitInfo != nil:
			c.TxnID, c.InCommitTimestamp = a.CommitInfo.TxnID, a.CommitInfo.InCommitTimestamp
		case a.Metadata != nil:
			c.Metadata = a.Metadata
		case a.Protocol != nil:
			c.Protocol = a.Protocol
		case a.Add != nil:
			c.Files, c.Bytes = c.Files+1, c.Bytes+a.Add.Size
		case a.Remove != nil:
			if was := x.base.state.files[a.Remove.key()]; was != nil {
				c.Files, c.Bytes = c.Files-1, c.Bytes-was.Size
			}
		}
	}
	return c
}
