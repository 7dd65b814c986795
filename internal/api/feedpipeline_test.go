package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
)

// The pipeline of a feed is stopped, started and refreshed as that of a synced
// table is, by whoever may change the feed.
func pipelineOfFeed(t *testing.T, p *people) {
	ctx := t.Context()
	branch := tarn.BranchName{Project: private, Branch: "production"}
	_, err := controldb.InsertBranch(ctx, p.db, tarn.Branch{BranchSpec: tarn.BranchSpec{Name: branch}, UID: uuid.NewString(), Default: true, Timeline: "0123456789abcdef0123456789abcdef"})
	must(t, err)
	f, err := p.config.Feeds.Create(ctx, tarn.Principal{}, tarn.FeedSpec{Branch: branch, PostgresSchema: "shop", Catalog: catalog.Default, Schema: "shop", FeedSettings: tarn.FeedSettings{Exclude: []string{"tmp_*"}}})
	must(t, err)
	must(t, controldb.UpsertFeedTable(ctx, p.db, f.UID, tarn.FeedTable{PostgresTable: "orders", State: tarn.FeedStreaming,
		Target: tarn.TableName{Catalog: catalog.Default, Schema: "shop", Table: "lb_orders_history"}}))
	h := New(p.config)
	at := "/api/2.0/pipelines/" + f.PipelineID
	call := func(who, path, body string, status int) string {
		t.Helper()
		w := request(h, "POST", at+path, body, p.bearers[who])
		if w.Code != status {
			t.Errorf("POST %s %s as %s: %d %s, want %d", path, body, who, w.Code, w.Body, status)
		}
		return w.Body.String()
	}
	is := func(paused bool, state tarn.FeedState) {
		t.Helper()
		now, err := p.config.Feeds.Get(ctx, branch, f.ID)
		must(t, err)
		if now.Paused != paused || len(now.Tables) != 1 || now.Tables[0].State != state || fmt.Sprint(now.Exclude) != "[tmp_*]" {
			t.Errorf("want paused %t and %s: %+v", paused, state, now)
		}
	}
	call("user", "/stop", "", 403)
	call("creator", "/updates", `{"full_refresh":true}`, 403)
	is(false, tarn.FeedStreaming)
	call("manager", "/updates", `{}`, 400) // it follows already
	call("manager", "/stop", "", 200)
	is(true, tarn.FeedStreaming)
	call("manager", "/updates", `{"refresh_selection":["orders"]}`, 400)
	call("manager", "/updates", `{"full_refresh_selection":["nothing"]}`, 404)
	is(true, tarn.FeedStreaming)

	var got struct {
		UpdateID *string `json:"update_id"`
	}
	// Nobody follows it here: no update begins.
	if err := json.Unmarshal([]byte(call("manager", "/updates", `{}`, 200)), &got); err != nil || got.UpdateID == nil || *got.UpdateID != "" {
		t.Errorf("an update began: %v %v", got.UpdateID, err)
	}
	is(false, tarn.FeedStreaming)
	call("manager", "/updates", `{"full_refresh_selection":["orders"]}`, 200)
	is(false, tarn.FeedSnapshotting)
	if body := request(h, "GET", at, "", p.bearers["manager"]).Body.String(); !strings.Contains(body, "feed lake.shop") {
		t.Errorf("the pipeline is %s", body)
	}
}
