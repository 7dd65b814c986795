"""A micro-batch: rows, and the checkpoint that counts once they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Optional

from .cursor import Column, Cursor
from .types import arrow_type, spark_type


@dataclass(frozen=True)
class Problem:
    """A value that has no form here and is None in its row."""

    key: tuple  # of the row, as text
    column: str
    text: str  # as Postgres prints it
    reason: str


class Batch:
    """Rows that were not read before, each the newest version of itself.

    `app_id` and `version` name the batch for an idempotent writer: Spark's txnAppId and
    txnVersion, or deltalake's CommitProperties(app_transactions=[Transaction(app_id, version)]).
    """

    def __init__(self, columns: list, rows: list, problems: list, app_id: str, cursor: Cursor, last_checkpoint: Optional[str], commit: Callable[["Batch"], None]):
        self.columns: list[Column] = columns
        self.rows: list[tuple] = rows  # in the order of columns
        self.problems: list[Problem] = problems
        self.app_id = app_id
        self.cursor = cursor  # where the reader is behind this batch
        self.version = cursor.round
        self.last_checkpoint = last_checkpoint  # highest checkpoint value read so far, as text
        self._commit = commit

    def commit(self) -> None:
        """Makes the checkpoint durable: the rows will not come again. Call it when they are kept."""
        self._commit(self)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict]:
        names = [c.name for c in self.columns]
        return (dict(zip(names, r)) for r in self.rows)

    def to_arrow(self):
        """A pyarrow.Table."""
        import pyarrow as pa

        schema = pa.schema([pa.field(c.name, arrow_type(c.type)) for c in self.columns])
        return pa.Table.from_arrays([pa.array([r[i] for r in self.rows], type=f.type) for i, f in enumerate(schema)], schema=schema)

    def to_pandas(self):
        return self.to_arrow().to_pandas()

    def to_spark(self, spark):
        """A Spark DataFrame."""
        schema = ", ".join("`%s` %s" % (c.name.replace("`", "``"), spark_type(c.type)) for c in self.columns)
        return spark.createDataFrame(self.rows, schema=schema)
