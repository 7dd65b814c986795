package delta

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// action is one line of a log file: exactly one of its fields is set. Actions
// and fields we do not know are ignored, as the protocol asks; the features
// that make them matter are named in the protocol action.
type action struct {
	Protocol   *protocolAction   `json:"protocol,omitempty"`
	Metadata   *metadataAction   `json:"metaData,omitempty"`
	Add        *addAction        `json:"add,omitempty"`
	Remove     *removeAction     `json:"remove,omitempty"`
	CDC        *cdcAction        `json:"cdc,omitempty"`
	Txn        *txnAction        `json:"txn,omitempty"`
	Domain     *domainAction     `json:"domainMetadata,omitempty"`
	CommitInfo *commitInfoAction `json:"commitInfo,omitempty"`
	Sidecar    *sidecarAction    `json:"sidecar,omitempty"`

	// manifest is the checkpointMetadata of a checkpoint of version 2, which is
	// only written: what a checkpoint is, its name says.
	manifest *int64
}

type protocolAction struct {
	MinReader      int      `json:"minReaderVersion"`
	MinWriter      int      `json:"minWriterVersion"`
	ReaderFeatures []string `json:"readerFeatures,omitempty"`
	WriterFeatures []string `json:"writerFeatures,omitempty"`
}

type formatSpec struct {
	Provider string            `json:"provider"`
	Options  map[string]string `json:"options"`
}

type metadataAction struct {
	ID               string            `json:"id"`
	Name             *string           `json:"name,omitempty"`
	Description      *string           `json:"description,omitempty"`
	Format           formatSpec        `json:"format"`
	SchemaString     string            `json:"schemaString"`
	PartitionColumns []string          `json:"partitionColumns"`
	Configuration    map[string]string `json:"configuration"`
	CreatedTime      *int64            `json:"createdTime,omitempty"` // ms since 1970
}

// dvDescriptor says where the deletion vector of a file is.
type dvDescriptor struct {
	StorageType string `json:"storageType"` // u: in the table's folder, i: inline, p: absolute
	PathOrDV    string `json:"pathOrInlineDv"`
	Offset      *int32 `json:"offset,omitempty"` // bytes; absent inline
	SizeInBytes int32  `json:"sizeInBytes"`
	Cardinality int64  `json:"cardinality"`
}

// id tells deletion vectors of one file apart.
func (d *dvDescriptor) id() string {
	if d == nil {
		return ""
	}
	if d.Offset == nil {
		return d.StorageType + d.PathOrDV
	}
	return fmt.Sprintf("%s%s@%d", d.StorageType, d.PathOrDV, *d.Offset)
}

// addAction makes a data file part of the table. Path is as it stands in the
// log: percent-encoded.
type addAction struct {
	Path             string             `json:"path"`
	PartitionValues  map[string]*string `json:"partitionValues"`
	Size             int64              `json:"size"`             // bytes
	ModificationTime int64              `json:"modificationTime"` // ms since 1970
	DataChange       bool               `json:"dataChange"`
	Stats            string             `json:"stats,omitempty"` // JSON text
	Tags             map[string]*string `json:"tags,omitempty"`
	DV               *dvDescriptor      `json:"deletionVector,omitempty"`
	BaseRowID        *int64             `json:"baseRowId,omitempty"`
	RowVersion       *int64             `json:"defaultRowCommitVersion,omitempty"`
	Clustering       *string            `json:"clusteringProvider,omitempty"`

	// rows is numRecords of a checkpoint's stats_parsed, when there was no
	// stats text; -1 otherwise.
	rows int64
}

func (a *addAction) key() fileKey { return fileKey{canonical(a.Path), a.DV.id()} }

// removeAction takes a data file out of the table; in the log it stays as a
// tombstone until the retention has passed.
type removeAction struct {
	Path              string             `json:"path"`
	DeletionTimestamp *int64             `json:"deletionTimestamp,omitempty"` // ms since 1970
	DataChange        bool               `json:"dataChange"`
	Extended          *bool              `json:"extendedFileMetadata,omitempty"`
	PartitionValues   map[string]*string `json:"partitionValues,omitempty"`
	Size              *int64             `json:"size,omitempty"`
	Tags              map[string]*string `json:"tags,omitempty"`
	DV                *dvDescriptor      `json:"deletionVector,omitempty"`
	BaseRowID         *int64             `json:"baseRowId,omitempty"`
	RowVersion        *int64             `json:"defaultRowCommitVersion,omitempty"`
}

func (r *removeAction) key() fileKey { return fileKey{canonical(r.Path), r.DV.id()} }

// cdcAction names a file with the rows that a commit changed. Such files are
// no part of the table.
type cdcAction struct {
	Path            string             `json:"path"`
	PartitionValues map[string]*string `json:"partitionValues"`
	Size            int64              `json:"size"` // bytes
	DataChange      bool               `json:"dataChange"`
	Tags            map[string]*string `json:"tags,omitempty"`
}

type txnAction struct {
	AppID       string `json:"appId"`
	Version     int64  `json:"version"`
	LastUpdated *int64 `json:"lastUpdated,omitempty"` // ms since 1970
}

type domainAction struct {
	Domain        string `json:"domain"`
	Configuration string `json:"configuration"`
	Removed       bool   `json:"removed"`
}

type sidecarAction struct {
	Path             string             `json:"path"`
	SizeInBytes      int64              `json:"sizeInBytes"`
	ModificationTime int64              `json:"modificationTime"` // ms since 1970
	Tags             map[string]*string `json:"tags,omitempty"`
}

// commitInfoAction is provenance. Other writers put what they like here, so
// the fields we do not decide by are kept loose.
type commitInfoAction struct {
	InCommitTimestamp *int64         `json:"inCommitTimestamp,omitempty"` // ms since 1970
	Timestamp         int64          `json:"timestamp"`                   // ms since 1970
	Operation         string         `json:"operation"`
	Parameters        map[string]any `json:"operationParameters"`
	Metrics           map[string]any `json:"operationMetrics,omitempty"`
	ReadVersion       *int64         `json:"readVersion,omitempty"`
	IsolationLevel    string         `json:"isolationLevel,omitempty"`
	IsBlindAppend     *bool          `json:"isBlindAppend,omitempty"`
	EngineInfo        string         `json:"engineInfo,omitempty"`
	TxnID             string         `json:"txnId,omitempty"`
}

// maxLine bounds one action; a larger one is damage, not data.
const maxLine = 256 << 20

// decodeActions reads newline-separated actions and hands each to do. It never
// panics, whatever the bytes.
func decodeActions(r io.Reader, do func(action) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	for line := 1; ; line++ {
		b, err := readLine(br)
		if err != nil && err != io.EOF {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if b = bytes.TrimSpace(b); len(b) > 0 {
			a, bad := decodeAction(b)
			if bad != nil {
				return fmt.Errorf("line %d: %w", line, bad)
			}
			if bad := do(a); bad != nil {
				return bad
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

func readLine(br *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		if line == nil && err == nil {
			return part, nil // valid until the next read: the caller is done by then
		}
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("longer than %d bytes", maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// errAction is in the chain of errors about one action's content.
var errAction = errors.New("bad action")

func decodeAction(b []byte) (action, error) {
	var a action
	if err := json.Unmarshal(b, &a); err != nil {
		// commitInfo is provenance only: one that breaks our shape is dropped.
		var loose map[string]json.RawMessage
		if json.Unmarshal(b, &loose) != nil || len(loose) != 1 || loose["commitInfo"] == nil {
			return action{}, fmt.Errorf("%w: %w", errAction, err)
		}
		return action{}, nil
	}
	if a.Add != nil {
		a.Add.rows = -1
	}
	if err := a.check(); err != nil {
		return action{}, fmt.Errorf("%w: %w", errAction, err)
	}
	return a, nil
}

// check refuses actions that lack what replay needs.
func (a *action) check() error {
	switch {
	case a.Add != nil && a.Add.Path == "":
		return errors.New("add without path")
	case a.Remove != nil && a.Remove.Path == "":
		return errors.New("remove without path")
	case a.CDC != nil && a.CDC.Path == "":
		return errors.New("cdc without path")
	case a.Protocol != nil && (a.Protocol.MinReader < 1 || a.Protocol.MinWriter < 1):
		return fmt.Errorf("protocol versions %d and %d", a.Protocol.MinReader, a.Protocol.MinWriter)
	case a.Txn != nil && a.Txn.AppID == "":
		return errors.New("txn without appId")
	case a.Domain != nil && a.Domain.Domain == "":
		return errors.New("domainMetadata without domain")
	case a.Sidecar != nil && a.Sidecar.Path == "":
		return errors.New("sidecar without path")
	}
	return nil
}

// encodeActions writes actions as a log file holds them.
func encodeActions(actions []action) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, a := range actions {
		if err := enc.Encode(a); err != nil {
			return nil, fmt.Errorf("encode action: %w", err)
		}
	}
	return out.Bytes(), nil
}
