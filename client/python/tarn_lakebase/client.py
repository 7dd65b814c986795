"""The client: what is new in a table since last time, and the statements around it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Iterable, Iterator, Mapping, Optional, Sequence

import psycopg
from psycopg import sql

from . import cursor as cur
from . import ddl
from .batch import Batch, Problem
from .connection import Lakebase
from .cursor import Cursor, Snapshot, Source
from .errors import LakebaseError
from .source import XID_COLUMN, describe, track
from .store import Checkpoint, CheckpointStore
from .types import decoder

# Text forms that read back as the same value, whatever the session's settings are.
_BEGIN = """BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL extra_float_digits = 1; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL statement_timeout = 0"""

_SNAPSHOT = """SELECT pg_current_snapshot()::text,
	CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
	(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::text"""

_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"


class LakebaseClient:
    """Reads one table in micro-batches, over one connection.

    database          a Lakebase, which says how the database is reached
    table_name        table or schema.table
    checkpoint_column the column to read along: a sequence, a time; NULL and equal values are fine
    checkpoint_store  keeps how far the reader is, by source id
    source_id         names this reader in the store; readers with names of their own read independently
    key_columns       columns that tell rows apart; None: the primary key
    late_interval     seconds between looks for rows that came late. Each look reads the whole table
                      once, unless `track_changes` gave it an index for that; 0: at every batch that
                      reaches the end
    """

    def __init__(
        self, database: Lakebase, table_name: str, checkpoint_column: str, checkpoint_store: CheckpointStore, *,
        source_id: Optional[str] = None, key_columns: Optional[Sequence[str]] = None, late_interval: float = 0.0,
    ):
        self.database = database
        self.table_name = table_name
        self.checkpoint_column = checkpoint_column
        self.checkpoint_store = checkpoint_store
        self.source_id = source_id or "%s.%s" % (table_name, checkpoint_column)
        self._key_columns = key_columns
        self._late_interval = late_interval
        self._late_at = float("-inf")
        self._conn: Optional[psycopg.Connection] = None
        self._system: Optional[str] = None
        self._source: Optional[Source] = None
        self._stored: Optional[Checkpoint] = None
        self._cursor: Optional[Cursor] = None
        self._pending: Optional[Batch] = None

    # -- reading -------------------------------------------------------------

    @property
    def last_checkpoint(self) -> Optional[str]:
        """The highest checkpoint value whose batch was committed, as text; None before the first."""
        self._load()
        return self._stored.last_checkpoint if self._stored else None

    def load_new_data(self, limit: int = 10_000) -> Batch:
        """At most `limit` rows that were not read before; none when there is nothing new.

        The batch before counts as kept: asking for the next one commits it. Until then, or
        until `Batch.commit`, a new client is given its rows again.
        """
        if limit < 1:
            raise LakebaseError("limit is %d; a batch has at least one row" % limit)
        if self._pending is not None:
            self._pending.commit()
        self._load()
        try:
            return self._read(limit)
        except psycopg.OperationalError:
            self._drop_connection()  # the compute slept, moved or restarted: reading again is safe
            return self._read(limit)

    def batches(self, limit: int = 10_000) -> Iterator[Batch]:
        """Batches until there is nothing new. Each is committed when the loop comes back for the next."""
        while len(batch := self.load_new_data(limit)):
            yield batch

    def reset(self) -> None:
        """Forgets what was read: the next batch begins at the beginning."""
        self._load()
        self._pending, self._cursor = None, Cursor(round=self._cursor.round)
        self._save(self._cursor, None)

    def close(self) -> None:
        """Ends the connection. A batch that was not committed will come again."""
        self._drop_connection()

    def __enter__(self) -> "LakebaseClient":
        return self

    def __exit__(self, kind, *_):
        if kind is None and self._pending is not None:
            self._pending.commit()
        self.close()

    def _load(self):
        if self._cursor is not None:
            return
        self._stored = self.checkpoint_store.get(self.source_id)
        if self._stored is None:
            self._cursor = Cursor()
        elif self._stored.state:
            self._cursor = Cursor.from_json(self._stored.state)
        else:
            raise LakebaseError(
                "the checkpoint of %s says how far a reader came (%s) but not which transactions it saw: rows that came late cannot be told."
                " Begin anew under another source_id" % (self.source_id, self._stored.last_checkpoint))

    def _read(self, limit: int) -> Batch:
        conn = self._connection()
        if self._source is None:
            self._source = describe(conn, self.table_name, self.checkpoint_column, self._key_columns)
        conn.execute(_BEGIN)
        try:
            return self._read_in(conn, self._source, limit)
        finally:
            if not conn.closed:
                conn.execute("ROLLBACK")

    def _read_in(self, conn, source: Source, limit: int) -> Batch:
        now = self._snapshot(conn)
        at = self._cursor
        if (why := cur.behind(at, now)) is not None:
            raise LakebaseError(
                "%s; %s. Transactions may have been lost with it, and their numbers given out again. reset() reads the table from the beginning" % (self.source_id, why))
        if now.nothing_since(at):
            return self._batch(source, at, [])
        rows: list = []
        if at.draining or len(at.segments) > cur.MAX_SEGMENTS:
            rows = self._fetch(conn, source, cur.late(source, at, now.xmax, limit))
            at = cur.after_late(at, source, rows, now, limit)
        if not at.draining and len(rows) < limit:
            room = limit - len(rows)
            ahead = self._fetch(conn, source, cur.forward(source, at, now.xmax, room))
            at = cur.after_forward(at, source, ahead, now)
            rows += ahead
            if len(ahead) < room and self._late_due(source):
                room -= len(ahead)
                behind = self._fetch(conn, source, cur.late(source, at, now.xmax, room))
                at = cur.after_late(at, source, behind, now, room)
                rows += behind
                if not at.draining:
                    self._late_at = time.monotonic()
        at = replace(at, line=now.line, lsn=max(now.lsn, at.lsn))
        return self._batch(source, at, rows)

    def _late_due(self, source: Source) -> bool:
        return source.xid_column is not None or time.monotonic() >= self._late_at + self._late_interval

    def _snapshot(self, conn) -> Snapshot:
        text, tli, lsn = conn.execute(_SNAPSHOT).fetchone()
        line = "%s/%s" % (self._system_identifier(conn), tli) if tli else ""
        return Snapshot.parse(text, line, int(float(lsn)))

    def _system_identifier(self, conn) -> str:
        if self._system is None:
            try:
                with conn.transaction():
                    self._system = conn.execute(_SYSTEM).fetchone()[0]
            except psycopg.errors.InsufficientPrivilege:
                self._system = "?"
        return self._system

    def _fetch(self, conn, source: Source, query) -> list:
        return conn.execute(query).fetchall()

    def _batch(self, source: Source, at: Cursor, raw: list) -> Batch:
        rows, problems = self._decode(source, raw)
        # A batch without rows may still remember more: it is a batch of its own only with rows.
        at = replace(at, round=at.round + 1) if rows else at
        last = at.position[0] if at.position else None
        batch = Batch(list(source.columns), rows, problems, "tarn-lakebase/" + self.source_id, at, last, self._commit)
        self._pending = batch if rows or at.segments != self._cursor.segments else None
        return batch

    def _decode(self, source: Source, raw: list) -> tuple:
        first = cur.lead(source)
        decoders = [(i, d) for i, c in enumerate(source.columns) if (d := decoder(c.type))]
        rows, problems = [], []
        for r in raw:
            row = list(r[first:])
            for i, decode in decoders:
                if row[i] is None:
                    continue
                try:
                    row[i] = decode(row[i])
                except ValueError as e:
                    problems.append(Problem(tuple(r[2:first]), source.columns[i].name, row[i], str(e)))
                    row[i] = None
            rows.append(tuple(row))
        return rows, problems

    def _commit(self, batch: Batch) -> None:
        if batch is not self._pending:
            return  # committed before, or by the call that asked for the next
        self._save(batch.cursor, batch.last_checkpoint)
        self._cursor, self._pending = batch.cursor, None

    def _save(self, at: Cursor, last: Optional[str]) -> None:
        now = Checkpoint(self.source_id, self.table_name, self.checkpoint_column, last, at.round, at.to_json())
        self.checkpoint_store.put(now, self._stored)
        self._stored = now

    # -- definitions ---------------------------------------------------------

    def create_table(self, columns: Mapping[str, str], primary_key: Sequence[str] = (), name: Optional[str] = None) -> None:
        """Makes the table unless it is there. Types come from a list; see ddl.py."""
        self.execute_ddl(ddl.create_table(name or self.table_name, columns, primary_key))

    def alter_table_add_column(self, column: str, column_type: str, name: Optional[str] = None) -> None:
        """Adds a column unless it is there."""
        self.execute_ddl(ddl.add_column(name or self.table_name, column, column_type))

    def create_index(self, columns: Sequence[str], *, index: Optional[str] = None, unique: bool = False, name: Optional[str] = None) -> str:
        """Makes an index without holding up writers and returns its name. What an attempt that failed left is removed first."""
        table = name or self.table_name
        index = ddl.index_name(table, columns, index)
        conn = self._connection()
        broken = conn.execute(
            "SELECT n.nspname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE NOT i.indisvalid AND c.relname = %s AND i.indrelid = to_regclass(%s)", [index, ddl.table_sql(table).as_string(conn)]).fetchone()
        if broken:
            self.execute_ddl(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(broken[0], index)))
        self.execute_ddl(ddl.create_index(table, columns, index, unique))
        return index

    def track_changes(self) -> None:
        """Gives the table a column `_xid`, a trigger that keeps it and an index, so that late rows are found without reading
        the whole table. Needs its owner; adding the column rewrites the table once."""
        conn = self._connection()
        with conn.transaction():
            conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(ddl.LOCK_TIMEOUT)))
            for statement in track(self.table_name):
                conn.execute(statement)
        self.create_index([XID_COLUMN])
        self._source = None

    def execute_ddl(self, statement) -> None:
        """Runs one statement that defines something; it gives up on a lock after 5 s instead of holding up others."""
        conn = self._connection()
        conn.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(ddl.LOCK_TIMEOUT)))
        try:
            conn.execute(statement)
        finally:
            if not conn.closed:
                conn.execute("RESET lock_timeout")
        self._source = None

    # -- rows ----------------------------------------------------------------

    def insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Inserts rows that have the same columns, in one transaction; returns how many."""
        rows = list(rows)
        if not rows:
            return 0
        names = list(rows[0])
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            self._table(), sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join(sql.Placeholder() * len(names)))
        if any(list(r) != names for r in rows):
            raise LakebaseError("the rows differ in their columns; the first has %s" % ", ".join(names))
        conn = self._connection()
        with conn.transaction(), conn.cursor() as c:
            c.executemany(statement, [list(r.values()) for r in rows])
        return len(rows)

    def select(self, where: Optional[Mapping[str, Any]] = None, columns: Sequence[str] = (), limit: Optional[int] = None) -> list:
        """Rows whose columns equal those of `where`, as dicts."""
        what = sql.SQL(", ").join(map(sql.Identifier, columns)) if columns else sql.SQL("*")
        query = sql.SQL("SELECT {} FROM {}").format(what, self._table())
        condition, args = self._where(where or {})
        if limit is not None:
            condition += sql.SQL(" LIMIT {}").format(sql.Literal(limit))
        c = self._connection().execute(query + condition, args)
        names = [d.name for d in c.description]
        return [dict(zip(names, r)) for r in c]

    def update(self, values: Mapping[str, Any], where: Mapping[str, Any]) -> int:
        """Sets columns of the rows that `where` names; returns how many. An empty `where` is refused."""
        self._refuse_all(where)
        sets = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(k), sql.Placeholder()) for k in values)
        condition, args = self._where(where)
        return self._connection().execute(sql.SQL("UPDATE {} SET {}").format(self._table(), sets) + condition, [*values.values(), *args]).rowcount

    def delete(self, where: Mapping[str, Any]) -> int:
        """Deletes the rows that `where` names; returns how many. An empty `where` is refused."""
        self._refuse_all(where)
        condition, args = self._where(where)
        return self._connection().execute(sql.SQL("DELETE FROM {}").format(self._table()) + condition, args).rowcount

    @staticmethod
    def _refuse_all(where):
        if not where:
            raise LakebaseError("no condition given: this would change every row; use execute_ddl('TRUNCATE …') if that is meant")

    @staticmethod
    def _where(where: Mapping[str, Any]) -> tuple:
        parts, args = [], []
        for k, v in where.items():
            if v is None:
                parts.append(sql.SQL("{} IS NULL").format(sql.Identifier(k)))
            else:
                parts.append(sql.SQL("{} = {}").format(sql.Identifier(k), sql.Placeholder()))
                args.append(v)
        return (sql.SQL(" WHERE ") + sql.SQL(" AND ").join(parts) if parts else sql.SQL("")), args

    def _table(self) -> sql.Composable:
        return ddl.table_sql(self.table_name)

    # -- the connection ------------------------------------------------------

    def _connection(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            self._conn = self.database.connect()
            self._conn.autocommit = True
        return self._conn

    def _drop_connection(self):
        conn, self._conn, self._system = self._conn, None, None
        if conn is not None:
            conn.close()
