package compute

import (
	"strings"

	"github.com/tarndb/tarn/internal/postgres"
)

// prewarmModule is Postgres's own: it writes the list of the pages in
// shared_buffers into the data directory (autoprewarm.blocks) when Postgres
// stops, and reads those pages in the background after the next start
// (contrib/pg_prewarm/autoprewarm.c). A fork has its parent's list.
const prewarmModule = "pg_prewarm"

// prewarm has a compute read ahead what was hot when it stopped, where its
// Postgres has the module. The list is also written once an hour, for branches of
// a compute that never stops; Postgres's own five minutes would be most of what
// an idle branch writes.
func prewarm(in postgres.Install, settings map[string]string) {
	if !in.Has(prewarmModule) {
		return
	}
	const libraries, interval = "shared_preload_libraries", prewarmModule + ".autoprewarm_interval"
	settings[libraries] = strings.TrimPrefix(settings[libraries]+","+prewarmModule, ",")
	if _, asked := settings[interval]; !asked {
		settings[interval] = "1h"
	}
}
