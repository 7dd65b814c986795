"""Reads a Delta table with the deltalake package and prints what it found as one JSON object."""

import base64
import datetime
import decimal
import json
import sys

from deltalake import DeltaTable, QueryBuilder


def plain(v):
    if isinstance(v, bytes):
        return base64.b64encode(v).decode()
    if isinstance(v, (datetime.datetime, datetime.date)):
        return v.isoformat()
    if isinstance(v, decimal.Decimal):
        return str(v)
    if isinstance(v, float) and v != v:
        return "NaN"
    raise TypeError(type(v))


def entries(v):
    """Maps come as lists of pairs; make them objects, so that order does not matter."""
    if isinstance(v, float):
        return v if v == v and abs(v) != float("inf") else str(v)
    if isinstance(v, dict):
        return {k: entries(x) for k, x in v.items()}
    if isinstance(v, list):
        if v and all(isinstance(x, tuple) and len(x) == 2 for x in v):
            return {str(k): entries(x) for k, x in v}
        return [entries(x) for x in v]
    return v


def rows(batches):
    import pyarrow as pa

    table = pa.table(batches)
    return [entries(r) for r in table.to_pylist()]


def query(dt, sql):
    """to_pyarrow_dataset would be shorter, but writes negative decimals of partitions as -12.-345."""
    return QueryBuilder().register("t", dt).execute(sql).read_all()


path, order = sys.argv[1], sys.argv[2]
dt = DeltaTable(path)
out = {"version": dt.version(), "files": len(dt.file_uris()), "metadata": dt.metadata().configuration}
protocol = dt.protocol()
out["protocol"] = [protocol.min_reader_version, protocol.min_writer_version]
out["rows"] = sorted(rows(query(dt, "select * from t")), key=lambda r: (r[order] is None, r[order]))
import pyarrow as pa

out["actions"] = pa.table(dt.get_add_actions(flatten=True)).to_pylist()
out["history"] = [h["operation"] for h in dt.history()]
out["versions"] = {}
first = min(int(h["version"]) for h in dt.history())
for v in range(first, dt.version() + 1):
    out["versions"][v] = rows(query(DeltaTable(path, version=v), "select count(*) as n from t"))[0]["n"]
out["txns"] = {k: dt.transaction_version(k) for k in sys.argv[3:]}
if out["metadata"].get("delta.enableChangeDataFeed") == "true":
    out["changes"] = [
        [r["_commit_version"], r["_change_type"], r[order]] for r in rows(dt.load_cdf(starting_version=max(first, 0)).read_all())
    ]
    out["changes"].sort(key=lambda r: [r[0], r[1], str(r[2])])
json.dump(out, sys.stdout, default=plain)
