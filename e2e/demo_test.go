package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// The main job on real input, twice: running it again works. Every step checks
// itself; what is checked here is what a user sees around it.
func TestDemo(t *testing.T) {
	grounds(t, func(t *testing.T, major string, flags ...string) {
		in := start(t, flags...)
		first := in.tarn("demo")
		for _, want := range []string{"http://" + in.api, "psql ", "tarn down"} {
			if !strings.Contains(first, want) {
				t.Errorf("tarn demo does not print %q:\n%s", want, first)
			}
		}
		in.tarn("demo")

		// A key that the Delta table does not have is refused before anything is
		// made, and the message names what there is.
		said := in.refused(1, "sync", "create", "--source", "lake.aviation.flights", "--name", "aviation.aviation.again", "--key", "tail_number")
		if !strings.Contains(said, "tail_number") || !strings.Contains(said, "flight_id") {
			t.Errorf("a key column that is not there: %s", said)
		}
		if list := in.tarn("sync", "list", "--project", "aviation"); strings.Contains(list, "again") {
			t.Errorf("the refused synced table is listed:\n%s", list)
		}

		var status map[string]json.RawMessage
		in.tarnJSON(&status, "status")
		for _, key := range []string{"projects", "branches", "endpoints", "processes"} {
			if len(status[key]) < 5 {
				t.Errorf("tarn status --json shows no %s: %s", key, status[key])
			}
		}
		in.stop()
		in.checkNothingLeft()

		// What was acknowledged is there after a restart.
		in.up()
		if v := in.tarn("psql", "aviation/production", "--", "-Atc", "SHOW server_version_num"); !strings.HasPrefix(v, major) {
			t.Errorf("Postgres %s was asked for, %s runs", major, v)
		}
		count := strings.TrimSpace(in.tarn("psql", "aviation/production", "--", "-Atc", "SELECT count(*) FROM aviation.flights"))
		if count != "300000" {
			t.Errorf("after a restart there are %s flights, want 300000", count)
		}
	})
}
