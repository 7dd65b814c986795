"""Makes, lists, uses and deletes a snapshot with the published SDK."""

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound
from databricks.sdk.service.postgres import Branch, BranchSpec, Snapshot, SnapshotSpec

w = WorkspaceClient()
spec = SnapshotSpec(source_branch="projects/shop/branches/production", no_expiry=True)
made = w.postgres.create_snapshot("projects/shop", Snapshot(spec=spec), "before").wait()
print(made.name, made.status.source_branch, made.status.no_expiry)
print(*(s.name for s in w.postgres.list_snapshots("projects/shop")))
branch = w.postgres.create_branch(
    "projects/shop", Branch(spec=BranchSpec(source_snapshot=made.name, no_expiry=True)), "again"
).wait()
print("read back", branch.status.source_snapshot)
w.postgres.delete_snapshot(made.name).wait()
try:
    w.postgres.get_snapshot(made.name)
except NotFound:
    print("gone")
