"""Works on a table as another tool would: appends, deletes, and makes a checkpoint."""

import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

path = sys.argv[1]
write_deltalake(path, pa.table({"id": pa.array([50, 51], pa.int64()), "name": ["theirs", "theirs"], "town": ["x", None]}), mode="append")
dt = DeltaTable(path)
dt.delete("id = 1")
dt.create_checkpoint()
print(dt.version())
