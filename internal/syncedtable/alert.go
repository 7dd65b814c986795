package syncedtable

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Alerts are told of every synced table of the workspace.
type Alerts struct {
	Webhook string   // URL; "" = none
	Command []string // program and arguments, which gets the alert on its standard input; nil = none
}

// Alert is the JSON object that a webhook or a command gets.
type Alert struct {
	Event         string    `json:"event"` // failed, lag or dead_letters
	SyncedTable   string    `json:"synced_table"`
	Source        string    `json:"source"`
	PipelineID    string    `json:"pipeline_id"`
	UpdateID      string    `json:"update_id,omitempty"`
	State         string    `json:"state"`
	Message       string    `json:"message"`
	Version       int64     `json:"version"`        // applied; -1 = none
	SourceVersion int64     `json:"source_version"` // newest seen
	LagSeconds    float64   `json:"lag_seconds"`
	DeadLetters   int64     `json:"dead_letters"`
	Time          time.Time `json:"time"`
}

const (
	alertPatience = 10 * time.Second
	alertTries    = 3
)

func (w *worker) alert(ctx context.Context, event, message string) {
	w.k.alert(ctx, w.row, event, message)
}

// alert tells whoever wants to know. That nobody could be told is an event;
// nothing else hangs on it.
func (k *Keeper) alert(ctx context.Context, t tarn.SyncedTable, event, message string) {
	now := time.Now().UTC()
	body, err := json.Marshal(Alert{
		Event: event, SyncedTable: t.Name.String(), Source: t.SyncedTableSpec.Source.String(), PipelineID: t.PipelineID, UpdateID: t.UpdateID,
		State: "SYNCED_TABLE_" + string(t.State), Message: message, Version: t.Version, SourceVersion: t.Newest.Version,
		LagSeconds: t.Lag(now).Seconds(), DeadLetters: t.Rejected, Time: now,
	})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	e := tarn.PipelineEvent{PipelineID: t.PipelineID, UpdateID: t.UpdateID, Level: tarn.EventWarn, Type: tarn.EventAlert, Message: event + ": " + message}
	for _, url := range []string{t.Alerts.Webhook, k.alerts.Webhook} {
		if url != "" {
			if err := post(ctx, url, body); err != nil {
				e.Error = err.Error()
			}
		}
	}
	if len(k.alerts.Command) > 0 {
		cctx, cancel := context.WithTimeout(ctx, alertPatience)
		defer cancel()
		c := exec.CommandContext(cctx, k.alerts.Command[0], k.alerts.Command[1:]...)
		c.Stdin = bytes.NewReader(body)
		if out, err := c.CombinedOutput(); err != nil {
			e.Error = fmt.Sprintf("run %s: %v: %s", k.alerts.Command[0], err, cut(string(out), 500))
		}
	}
	if err := controldb.InsertEvent(ctx, k.db, e); err != nil && ctx.Err() == nil {
		k.log.Error("record alert", "err", err)
	}
}

func post(ctx context.Context, url string, body []byte) (err error) {
	for try := range alertTries {
		if try > 0 {
			pause(ctx, time.Second<<try)
		}
		if err = postOnce(ctx, url, body); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func postOnce(ctx context.Context, url string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, alertPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("tell the webhook: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("tell the webhook: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("tell the webhook: it answered %s", resp.Status)
	}
	return nil
}
