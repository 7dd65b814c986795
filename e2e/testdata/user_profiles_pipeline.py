"""Refreshes the second program's table through its pipeline and reads what that did."""

import time

from databricks.sdk import WorkspaceClient
from databricks.sdk.service.pipelines import UpdateInfoState

w = WorkspaceClient()
NAME = "shop.public.user_profiles"


def wait(state):
    for _ in range(600):
        s = w.database.get_synced_database_table(name=NAME).data_synchronization_status
        if s.detailed_state.value == state:
            return s
        time.sleep(0.2)
    raise SystemExit(f"never {state}: {s}")


s = wait("SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE")
pipeline = s.pipeline_id
update = w.pipelines.start_update(pipeline).update_id
for _ in range(600):
    u = w.pipelines.get_update(pipeline, update).update
    if u.state in (UpdateInfoState.COMPLETED, UpdateInfoState.FAILED):
        break
    time.sleep(0.2)
s = wait("SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE")
print(u.state.value, u.full_refresh, s.triggered_update_status.last_processed_commit_version,
      s.last_sync.delta_table_sync_info.delta_commit_version)
p = w.pipelines.get(pipeline)
print(p.state.value, [u.state.value for u in p.latest_updates], len(w.pipelines.list_updates(pipeline).updates))
print(sorted({e.event_type for e in w.pipelines.list_pipeline_events(pipeline)}))
print([p.pipeline_id == pipeline for p in w.pipelines.list_pipelines()])
w.pipelines.stop(pipeline)
print(w.database.list_synced_database_tables("shop").__next__().name)
