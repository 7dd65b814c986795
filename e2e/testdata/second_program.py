"""The published quick start of a synced table, as it is in the documentation."""

from databricks.sdk import WorkspaceClient
from databricks.sdk.service.database import (
    NewPipelineSpec,
    SyncedDatabaseTable,
    SyncedTableSchedulingPolicy,
    SyncedTableSpec,
)

w = WorkspaceClient()
w.database.create_synced_database_table(SyncedDatabaseTable(
    name="shop.public.user_profiles",
    spec=SyncedTableSpec(source_table_full_name="analytics.gold.user_profiles", primary_key_columns=["user_id"],
                         scheduling_policy=SyncedTableSchedulingPolicy.TRIGGERED,
                         new_pipeline_spec=NewPipelineSpec(storage_catalog="shop", storage_schema="staging"))))
s = w.database.get_synced_database_table(name="shop.public.user_profiles")
print(s.data_synchronization_status.detailed_state, s.data_synchronization_status.message)
