"""Prints how many rows DuckDB reads of a Delta table."""

import glob
import os
import sys

import duckdb
import duckdb_extension_delta

con = duckdb.connect()
extension = glob.glob(os.path.join(os.path.dirname(duckdb_extension_delta.__file__), "extensions", "*", "delta.duckdb_extension"))[0]
con.execute(f"LOAD '{extension}'")
print(con.execute("SELECT count(*) FROM delta_scan(?)", [sys.argv[1]]).fetchone()[0])
