"""Works on a table with a change data feed as another tool would, and prints what the tool says changed."""

import json
import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

path, partition = sys.argv[1], sys.argv[2]


def table(*rows):
    ids, names, towns = zip(*rows)
    return pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array(names, pa.string()), "town": pa.array(towns, pa.string())})


write_deltalake(
    path, table((1, "a", "x"), (2, "b", "y"), (3, None, None), (4, "d", "x")),
    partition_by=["town"] if partition == "town" else None, configuration={"delta.enableChangeDataFeed": "true"},
)
dt = DeltaTable(path)
dt.update(updates={"name": "'changed'"}, predicate="id = 2")
dt.delete("id = 1")
(
    dt.merge(table((4, "merged", "x"), (3, "kept", None), (9, "new", "y")), predicate="s.id = t.id", source_alias="s", target_alias="t")
    .when_matched_update_all(predicate="s.id = 4")
    .when_not_matched_insert_all()
    .execute()
)
dt.optimize.compact()
write_deltalake(dt, pa.table({"id": pa.array([7], pa.int64()), "name": ["n"], "town": ["z"], "more": pa.array([1.5])}), mode="append", schema_mode="merge")
dt.delete()
got = pa.table(DeltaTable(path).load_cdf(starting_version=0).read_all())
out = []
for r in got.to_pylist():
    out.append([r["_commit_version"], r["_change_type"], r["id"], r["name"], r["town"], r.get("more")])
json.dump(out, sys.stdout)
