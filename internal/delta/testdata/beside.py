"""Appends rows, one a commit, while others write to the table."""

import sys

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

for i in range(int(sys.argv[2])):
    rows = pa.table({"id": pa.array([1000 + i], pa.int64()), "name": ["theirs"], "town": ["z"]})
    while True:
        try:
            write_deltalake(sys.argv[1], rows, mode="append", commit_properties=CommitProperties(max_commit_retries=100))
            break
        except CommitFailedError:  # it takes its appends to have read the table
            pass
