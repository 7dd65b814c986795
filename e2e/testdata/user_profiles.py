"""Writes the Delta table of the second program with deltalake: make, or change."""

import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

step, path = sys.argv[1:]
if step == "make":
    rows = pa.table({"user_id": pa.array(range(1000), pa.int64()), "name": [f"user {i}" for i in range(1000)]})
    write_deltalake(path, rows, configuration={"delta.enableChangeDataFeed": "true"})
else:
    t = DeltaTable(path)
    t.update(predicate="user_id < 10", updates={"name": "'renamed'"})
    t.delete("user_id >= 990")
    new = pa.table({"user_id": pa.array([5, 2000], pa.int64()), "name": ["merged", "added"]})
    (t.merge(new, predicate="t.user_id = s.user_id", source_alias="s", target_alias="t")
        .when_matched_update_all().when_not_matched_insert_all().execute())
print(DeltaTable(path).version())
