package node

import (
	"net/http"
	"time"

	"github.com/tarndb/tarn"
)

// The methods, as they stand in the URL.
const (
	methodCreateTimeline = "create-timeline"
	methodDeleteTimeline = "delete-timeline"
	methodTimeline       = "timeline"
	methodTimelines      = "timelines"
	methodWindow         = "window"
	methodSetHistory     = "set-history"
	methodDropSlots      = "drop-slots"
	methodWake           = "wake"
	methodSuspend        = "suspend"
	methodComputes       = "computes"
	methodVersions       = "versions"
	methodRestart        = "restart"
	methodStoreStats     = "store-stats"
	methodCheckStore     = "check-store"
)

const pathPrefix = "/v1/"

// none is the argument or result of a method that has none.
type none struct{}

type timelineArg struct {
	ID tarn.TimelineID `json:"id"`
}

type historyArg struct {
	ID      tarn.TimelineID `json:"id"`
	History time.Duration   `json:"history"` // nanoseconds; 0 = the default, negative = none
}

type endpointArg struct {
	Endpoint string `json:"endpoint"`
}

type restartArg struct {
	From string `json:"from"`
}

type restartResult struct {
	Name string `json:"name"`
}

// statusAgain is the answer of a node that stops: the same call is to be made
// again, to the one that takes its place.
const statusAgain = http.StatusServiceUnavailable

// fault is an error on the wire. Kinds travel by name: their numbers belong to
// one build.
type fault struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func newFault(err error) fault {
	return fault{Kind: tarn.KindOf(err).String(), Message: err.Error(), Hint: tarn.HintOf(err)}
}

// err is the error that newFault was given, as far as it travels.
func (f fault) err() error {
	e := &tarn.Error{Kind: tarn.KindInternal, Msg: f.Message, Hint: f.Hint}
	for k := tarn.KindInternal; k <= tarn.KindUnavailable; k++ {
		if k.String() == f.Kind {
			e.Kind = k
		}
	}
	return e
}
