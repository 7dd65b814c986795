"""Where checkpoints are kept: one row a source in a small Delta table, merged by source id."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Optional, Protocol

from .errors import StaleCheckpoint

# The columns of a checkpoint table, in Spark's words.
SCHEMA = "source_id string, table_name string, checkpoint_column string, last_checkpoint string, round bigint, state string, updated_at timestamp"


@dataclass(frozen=True)
class Checkpoint:
    source_id: str
    table_name: str
    checkpoint_column: str
    last_checkpoint: Optional[str]  # highest value read, as text
    round: int  # batches so far
    state: Optional[str]  # the cursor as JSON; None in tables of simpler readers


class CheckpointStore(Protocol):
    """Keeps checkpoints. `put` replaces the row of `before`, and fails with StaleCheckpoint when
    it is no longer the one that is there: two readers of one source would lose rows."""

    def get(self, source_id: str) -> Optional[Checkpoint]: ...

    def put(self, now: Checkpoint, before: Optional[Checkpoint]) -> None: ...


class MemoryCheckpointStore:
    """Forgets with the process; for tests and one-off reads."""

    def __init__(self):
        self._rows = {}

    def get(self, source_id):
        return self._rows.get(source_id)

    def put(self, now, before):
        _check(self._rows.get(now.source_id), before)
        self._rows[now.source_id] = now


def _check(have, before):
    if (have.round if have else None) != (before.round if before else None):
        raise StaleCheckpoint("source %s is at batch %s; another program moved it on from %s" % (
            (have or before).source_id, have.round if have else "none", before.round if before else "none"))


class DeltaCheckpointStore:
    """A Delta table in a folder or bucket, by the package deltalake."""

    TRIES = 10

    def __init__(self, path: str, storage_options: Optional[dict] = None):
        self.path, self.options = path, storage_options

    def _open(self):
        import pyarrow as pa
        from deltalake import DeltaTable

        schema = pa.schema([
            ("source_id", pa.string()), ("table_name", pa.string()), ("checkpoint_column", pa.string()), ("last_checkpoint", pa.string()),
            ("round", pa.int64()), ("state", pa.string()), ("updated_at", pa.timestamp("us", tz="UTC"))])
        if not DeltaTable.is_deltatable(self.path, self.options):
            DeltaTable.create(self.path, schema, mode="ignore", name="checkpoints", storage_options=self.options)
        return DeltaTable(self.path, storage_options=self.options), schema

    def get(self, source_id):
        table, _ = self._open()
        return self._find(table, source_id)

    @staticmethod
    def _find(table, source_id):
        rows = table.to_pyarrow_table(filters=[("source_id", "=", source_id)]).to_pylist()
        if not rows:
            return None
        row = rows[0]
        return Checkpoint(source_id, row["table_name"], row["checkpoint_column"], row["last_checkpoint"], row.get("round") or 0, row.get("state"))

    def put(self, now, before):
        """One merge, on top of the version whose row was looked at; another writer's commit
        in between makes the merge look again."""
        import pyarrow as pa
        from deltalake.exceptions import CommitFailedError

        for attempt in range(self.TRIES):
            table, schema = self._open()
            _check(self._find(table, now.source_id), before)
            row = {**now.__dict__, "updated_at": datetime.now(timezone.utc)}
            rows = pa.Table.from_pylist([row], schema=schema)
            try:
                merge = table.merge(rows, "t.source_id = s.source_id", source_alias="s", target_alias="t")
                merge.when_matched_update_all().when_not_matched_insert_all().execute()
                return
            except CommitFailedError:
                if attempt == self.TRIES - 1:
                    raise
                time.sleep(random.uniform(0, 0.05 * 2**attempt))  # others write to the same small table


class SparkCheckpointStore:
    """A Delta table that a Spark session knows by name."""

    def __init__(self, spark: Any, table: str):
        self.spark, self.table = spark, table
        spark.sql("CREATE TABLE IF NOT EXISTS %s (%s) USING delta" % (_quoted(table), SCHEMA))

    def get(self, source_id):
        rows = self.spark.table(self.table).where("source_id = '%s'" % source_id.replace("\\", "\\\\").replace("'", "\\'")).collect()
        if not rows:
            return None
        r = rows[0].asDict()
        return Checkpoint(source_id, r["table_name"], r["checkpoint_column"], r["last_checkpoint"], r.get("round") or 0, r.get("state"))

    def put(self, now, before):
        _check(self.get(now.source_id), before)
        row = (*now.__dict__.values(), datetime.now(timezone.utc))
        self.spark.createDataFrame([row], schema=SCHEMA).createOrReplaceTempView("tarn_checkpoint")
        self.spark.sql(
            "MERGE INTO %s t USING tarn_checkpoint s ON t.source_id = s.source_id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *" % _quoted(self.table))


def _quoted(name: str) -> str:
    return ".".join("`%s`" % part.replace("`", "``") for part in name.split("."))
