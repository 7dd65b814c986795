"""The peer of bench/delta: one case of the package deltalake. Prints the seconds that the work took."""

import sys
import time

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake

what, path, total, small = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def rows(lo, hi):
    ids = range(lo, hi)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "n": pa.array([i % 1000 for i in ids], pa.int32()),
            "price": pa.array([i * 1.25 for i in ids]),
            "at": pa.array([1_700_000_000_000_000 + i for i in ids], pa.int64()).cast(pa.timestamp("us", "UTC")),
            "kind": [f"kind {i % 50}" for i in ids],
            "note": [f"a note of some length about row {i * 7919 % total}" for i in ids],
        }
    )


def fill(each):
    took = 0.0
    for lo in range(0, total, each):
        data = rows(lo, lo + each)
        began = time.perf_counter()
        write_deltalake(path, data, mode="append")
        took += time.perf_counter() - began
    return took


if what == "append":
    print(fill(total))
elif what == "scan":
    fill(total)
    began = time.perf_counter()
    n = sum(b.num_rows for b in QueryBuilder().register("t", DeltaTable(path)).execute("select * from t"))
    print(time.perf_counter() - began)
    assert n == total, n
elif what == "optimize":
    fill(small)
    began = time.perf_counter()
    DeltaTable(path).optimize.compact()
    print(time.perf_counter() - began)
