"""Compares what we read of Delta tables with what other readers do.

Standard input: a JSON list of {"name", "table", "ours" (an Arrow IPC file), "expected" (a folder of Parquet files, or "")}.
Standard output: a JSON object, name -> {reader -> "same", "cannot: …" or "differs: …"}.
"""

import base64
import datetime
import decimal
import glob
import json
import math
import os
import sys

import duckdb
import duckdb_extension_delta
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder

UTC = datetime.timezone.utc


def value(v):
    """One spelling for values that readers give in different Python types."""
    if isinstance(v, float):
        if math.isnan(v):
            return "NaN"
        return repr(v + 0.0)
    if isinstance(v, (bytes, bytearray, memoryview)):
        return "b:" + base64.b64encode(bytes(v)).decode()
    if isinstance(v, datetime.datetime):
        if v.tzinfo is not None:
            v = v.astimezone(UTC).replace(tzinfo=None)
        return "t:" + v.isoformat(sep=" ", timespec="microseconds")
    if isinstance(v, datetime.date):
        return "d:" + v.isoformat()
    if isinstance(v, decimal.Decimal):
        return "n:" + format(v, "f")
    if isinstance(v, dict):
        return {k: value(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        if v and all(isinstance(x, tuple) and len(x) == 2 for x in v):  # a map
            return sorted(([value(k), value(x)] for k, x in v), key=json.dumps)
        return [value(x) for x in v]
    return v


def plain(table):
    """Drops what has no part in values: dictionaries, time units, views, nullability."""

    def typ(t):
        if pa.types.is_dictionary(t):
            return typ(t.value_type)
        if pa.types.is_timestamp(t):
            return pa.timestamp("us", t.tz and "UTC")
        if pa.types.is_string_view(t) or pa.types.is_large_string(t):
            return pa.string()
        if pa.types.is_binary_view(t) or pa.types.is_large_binary(t):
            return pa.binary()
        if pa.types.is_struct(t):
            return pa.struct([pa.field(f.name, typ(f.type)) for f in t])
        if pa.types.is_list(t) or pa.types.is_large_list(t):
            return pa.list_(pa.field("element", typ(t.value_type)))
        if pa.types.is_map(t):
            return pa.map_(typ(t.key_type), typ(t.item_type))
        return t

    schema = pa.schema([pa.field(f.name, typ(f.type)) for f in table.schema])
    try:
        return table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return table


def rows(table):
    table = plain(pa.table(table))
    names = table.schema.names
    columns = []
    for i in range(len(names)):
        c = table.column(i)
        try:
            columns.append(c.to_pylist())
        except (OverflowError, ValueError):  # beyond Python's years
            columns.append(c.cast(pa.int64()).to_pylist())
    order = sorted(range(len(names)), key=lambda i: names[i])
    out = [json.dumps({names[i]: value(columns[i][r]) for i in order}, sort_keys=True) for r in range(table.num_rows)]
    return sorted(out)


def expected(folder):
    if os.path.isdir(folder + "/latest"):  # beside folders of earlier versions
        folder += "/latest"
    files = sorted(f for f in glob.glob(glob.escape(folder) + "/**/*.parquet", recursive=True))
    if not files:
        raise ValueError("no files")
    return pa.concat_tables([pq.ParquetFile(f).read() for f in files], promote_options="permissive")


con = duckdb.connect()
con.execute("set timezone = 'UTC'")
extension = glob.glob(os.path.join(os.path.dirname(duckdb_extension_delta.__file__), "extensions", "*", "delta.duckdb_extension"))[0]
con.execute(f"load '{extension}'")


def by_duckdb(path):
    return con.execute("select * from delta_scan(?)", [path]).to_arrow_table()


def by_deltalake(path):
    return QueryBuilder().register("t", DeltaTable(path)).execute("select * from t").read_all()


LARGE = 10_000


def in_order(table):
    table = plain(table)
    table = table.select(sorted(table.schema.names))
    return table.sort_by([(n, "ascending") for n in table.schema.names])


def compare(table, read):
    try:
        theirs = pa.table(read())
        if table.num_rows > LARGE:
            return "same" if in_order(table).equals(in_order(theirs)) else "differs: a large table"
        theirs = rows(theirs)
    except BaseException as e:  # a panic of Rust is no Exception
        return "cannot: " + str(e)[:200]
    ours = rows(table)
    if ours == theirs:
        return "same"
    only_ours = [r for r in ours if r not in set(theirs)][:2]
    only_theirs = [r for r in theirs if r not in set(ours)][:2]
    return f"differs: {len(ours)} rows against {len(theirs)}; ours {only_ours}, theirs {only_theirs}"


out = {}
for case in json.load(sys.stdin):
    with pa.ipc.open_file(case["ours"]) as r:
        ours = r.read_all()
    readers = {"deltalake": lambda: by_deltalake(case["table"]), "duckdb": lambda: by_duckdb(case["table"])}
    if case["expected"]:
        readers["expected"] = lambda: expected(case["expected"])
    out[case["name"]] = {name: compare(ours, read) for name, read in readers.items()}
json.dump(out, sys.stdout)
