"""Makes (step 0) or changes a Delta table that a synced table follows: three commits a step."""

import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

path, step = sys.argv[1], int(sys.argv[2])


def rows(start, n, text):
    return pa.table({"id": pa.array(range(start, start + n), pa.int64()), "v": [text] * n})


if step == 0:
    write_deltalake(path, rows(0, 2000, "first"), configuration={"delta.enableChangeDataFeed": "true"})
else:
    write_deltalake(path, rows(10_000 * step, 100, f"added {step}"), mode="append")
    t = DeltaTable(path)
    t.update(predicate=f"id % 7 = {step}", updates={"v": f"'updated {step}'"})
    t.delete(f"id >= {2000 - 200 * step} and id < {2000 - 200 * (step - 1)}")
print(DeltaTable(path).version())
