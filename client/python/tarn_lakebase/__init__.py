"""Micro-batches out of a Postgres table, over one connection, without losing a row.

A program asks for what is new since last time. The usual way, ``WHERE id > last ORDER BY
id LIMIT n``, loses rows: numbers and times are given out when a row is written, and become
visible when its transaction commits, which may be later than a row with a higher number.
`LakebaseClient` remembers, beside the highest checkpoint value, which transactions it has
seen, and so finds what came late, rows whose checkpoint is equal or NULL, and rows that
were changed without moving their checkpoint.
"""

from .batch import Batch
from .client import LakebaseClient
from .connection import Lakebase
from .cursor import Cursor, Segment
from .errors import LakebaseError, StaleCheckpoint
from .store import CheckpointStore, DeltaCheckpointStore, MemoryCheckpointStore, SparkCheckpointStore

__all__ = [
    "Batch", "CheckpointStore", "Cursor", "DeltaCheckpointStore", "Lakebase", "LakebaseClient", "LakebaseError",
    "MemoryCheckpointStore", "Segment", "SparkCheckpointStore", "StaleCheckpoint",
]
