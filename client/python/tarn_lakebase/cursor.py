"""Where a reader is in a table, and the queries that find what it has not read.

A position in the table's order is the text of (checkpoint, key columns). The reader has
read the table in *segments* of that order, each in one snapshot. Of a segment it remembers
how far it reaches, the snapshot's xmin (every transaction below it was over) and which
transactions from xmin on it saw rows of. A row version written by transaction x and lying
in the segment was read if, and only if,

    x < xmin  or  x in seen

because a transaction becomes visible as a whole: had the snapshot not shown this row, it
would have shown none of x. (A subtransaction has an x of its own, visible as a whole too;
asking a snapshot about it would be wrong, since snapshots list main transactions only.)

Reading *forward* adds a segment. Reading *late* rows, those of segments which the rule
calls unread, and which have meanwhile become visible, makes the segments one again: when
none is left, everything that the present snapshot shows has been read. Late rows are read
transaction by transaction, so that a batch may end in the middle: `done` are those read to
their end, `open` is the one in the middle and the key reached in it. Forward reading waits
meanwhile; the rows of a transaction below the cursor are then a fixed set.

Rows whose checkpoint is NULL count to the first segment. The Go package `ingest` keeps the same
state in the same JSON; either can go on where the other stopped.

Postgres gives out 2^32 transaction numbers before they repeat. A row that has lain still for
a whole turn may be read again; none is left out. A database that went back in time (a
restore, another server) gives numbers out again that this state knows: `behind` finds that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Optional

from psycopg import sql

from .types import as_text

# Beyond this many segments late rows are read before going forward.
MAX_SEGMENTS = 256


@dataclass
class Segment:
    """Part of the table's order, read in one snapshot, or as if."""

    to: Optional[list]  # position of its last row, as text; None: only rows with a NULL checkpoint
    xmin: int
    seen: list


@dataclass
class Cursor:
    """All that a reader remembers of a table. The zero cursor has read nothing."""

    round: int = 0  # batches so far
    segments: list = field(default_factory=lambda: [Segment(None, 0, [])])
    done: list = field(default_factory=list)
    open_xid: Optional[int] = None
    open_key: Optional[list] = None
    line: str = ""  # whose transaction numbers these are: system identifier / WAL timeline
    lsn: int = 0  # end of the WAL, in bytes, when the last batch was read

    @property
    def position(self) -> Optional[list]:
        return self.segments[-1].to

    @property
    def draining(self) -> bool:
        """A batch ended among late rows."""
        return self.open_xid is not None or bool(self.done)

    def to_json(self) -> str:
        late = None
        if self.draining:
            late = {"done": [str(x) for x in self.done]}
            if self.open_xid is not None:
                late.update(xid=str(self.open_xid), key=self.open_key)
        out = {
            "v": 1, "round": self.round,
            "segments": [{"to": s.to, "xmin": str(s.xmin), "seen": [str(x) for x in s.seen]} for s in self.segments],
        }
        if late:
            out["late"] = late
        if self.line or self.lsn:
            out.update(line=self.line, lsn=str(self.lsn))
        return json.dumps(out, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Cursor":
        raw = json.loads(text)
        if raw.get("v") != 1:
            raise ValueError("checkpoint state of version %r; this program reads version 1" % raw.get("v"))
        late = raw.get("late") or {}
        xid = late.get("xid")
        return cls(
            round=raw["round"],
            segments=[Segment(s["to"], int(s["xmin"]), [int(x) for x in s["seen"] or []]) for s in raw["segments"]],
            done=[int(x) for x in late.get("done") or []],
            open_xid=None if xid is None else int(xid), open_key=late.get("key"),
            line=raw.get("line", ""), lsn=int(raw.get("lsn", 0)),
        )

    def newest_xid(self) -> int:
        """No transaction number in here is higher."""
        return max([s.xmin for s in self.segments] + [x for s in self.segments for x in s.seen] + self.done + [self.open_xid or 0])


@dataclass(frozen=True)
class Column:
    name: str
    type: str  # as format_type prints it

    @property
    def ident(self) -> sql.Identifier:
        return sql.Identifier("t", self.name)


@dataclass(frozen=True)
class Source:
    """The table as the queries need it."""

    table: sql.Composable  # quoted name
    columns: tuple  # of Column, in order
    checkpoint: Column
    key: tuple  # of Column; unique, never NULL
    xid_column: Optional[str] = None  # an xid8 column kept by a trigger; None: the system column xmin

    @property
    def order(self) -> tuple:
        return (self.checkpoint, *self.key)


# How many columns stand before the table's own in every row of a batch query.
def lead(source: Source) -> int:
    return 1 + len(source.order)


def _xid(source: Source, snapshot_xmax: int) -> sql.Composable:
    """The 64-bit number of the transaction that wrote a row version.

    xmin has its lower 32 bits; the upper ones are those of the snapshot's end, or one less.
    Numbers below 3 mark rows older than every transaction.
    """
    if source.xid_column:
        return sql.SQL("{}::text::bigint").format(sql.Identifier("t", source.xid_column))
    low = snapshot_xmax & 0xFFFFFFFF
    high = snapshot_xmax - low
    return sql.SQL(
        "(CASE WHEN t.xmin::text::bigint < 3 THEN 0 WHEN t.xmin::text::bigint < {low} THEN {high} + t.xmin::text::bigint"
        " ELSE greatest({high} - 4294967296 + t.xmin::text::bigint, 0) END)"
    ).format(low=sql.Literal(low), high=sql.Literal(high))


def _select(source: Source, xid: sql.Composable) -> sql.Composable:
    """Who wrote the row, its position as text, its columns."""
    columns = [sql.SQL("{}::text").format(c.ident) if as_text(c.type) else c.ident for c in source.columns]
    parts = [sql.SQL("w.x")] + [sql.SQL("{}::text").format(c.ident) for c in source.order] + columns
    return sql.SQL("SELECT {} FROM {} AS t, LATERAL (SELECT {} AS x) AS w").format(sql.SQL(", ").join(parts), source.table, xid)


def _tuple(source: Source) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(", ").join(c.ident for c in source.order))


def _value(text: str, column: Column) -> sql.Composable:
    # The type comes from format_type of the table's own column, never from a user.
    return sql.SQL("{}::text::").format(sql.Literal(text)) + sql.SQL(column.type)


def _at(source: Source, position: list) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(", ").join(_value(v, c) for v, c in zip(position, source.order)))


def forward(source: Source, cursor: Cursor, snapshot_xmax: int, limit: int) -> sql.Composable:
    """Rows behind the cursor, in order."""
    where = sql.SQL("{} IS NOT NULL").format(source.checkpoint.ident)
    if cursor.position is not None:
        where = sql.SQL("{} > {}").format(_tuple(source), _at(source, cursor.position))
    return _select(source, _xid(source, snapshot_xmax)) + sql.SQL(" WHERE {} ORDER BY {} LIMIT {}").format(
        where, sql.SQL(", ").join(c.ident for c in source.order), sql.Literal(limit))


def late(source: Source, cursor: Cursor, snapshot_xmax: int, limit: int) -> sql.Composable:
    """Rows before the cursor that were not read, transaction by transaction."""
    xid = _xid(source, snapshot_xmax)
    null = sql.SQL("{} IS NULL").format(source.checkpoint.ident)
    since = min(s.xmin for s in cursor.segments)
    where = [_since(source, xid, since)]
    if cursor.position is None:
        where.append(null)
    else:
        where.append(sql.SQL("({} OR {} <= {})").format(null, _tuple(source), _at(source, cursor.position)))
    arms = []
    for i, s in enumerate(cursor.segments):
        read = sql.SQL("w.x < {}").format(sql.Literal(s.xmin))
        if s.seen:
            read = sql.SQL("({} OR w.x = ANY({}))").format(read, sql.Literal(s.seen))
        if s.to is None:
            arms.append(sql.SQL("WHEN {} THEN {}").format(null, read))
        else:
            within = sql.SQL("{} <= {}").format(_tuple(source), _at(source, s.to))
            if i == 0:
                within = sql.SQL("({} OR {})").format(null, within)
            arms.append(sql.SQL("WHEN {} THEN {}").format(within, read))
    where.append(sql.SQL("NOT CASE {} ELSE true END").format(sql.SQL(" ").join(arms)))
    if cursor.done:
        where.append(sql.SQL("w.x <> ALL({})").format(sql.Literal(cursor.done)))
    key = sql.SQL("({})").format(sql.SQL(", ").join(c.ident for c in source.key))
    first = sql.SQL("w.x")
    if cursor.open_xid is not None:
        mine = sql.SQL("w.x = {}").format(sql.Literal(cursor.open_xid))
        behind = sql.SQL("({})").format(sql.SQL(", ").join(_value(v, c) for v, c in zip(cursor.open_key, source.key)))
        where.append(sql.SQL("NOT ({} AND {} <= {})").format(mine, key, behind))
        first = sql.SQL("{} DESC, w.x").format(mine)
    keys = sql.SQL(", ").join(c.ident for c in source.key)
    return _select(source, xid) + sql.SQL(" WHERE {} ORDER BY {}, {} LIMIT {}").format(sql.SQL(" AND ").join(where), first, keys, sql.Literal(limit))


def _since(source: Source, xid: sql.Composable, since: int) -> sql.Composable:
    if source.xid_column:  # in a form that an index serves
        return sql.SQL("{} >= {}::xid8").format(sql.Identifier("t", source.xid_column), sql.Literal(str(since)))
    return sql.SQL("w.x >= {}").format(sql.Literal(since))


def after_late(cursor: Cursor, source: Source, rows: list, snapshot: "Snapshot", limit: int) -> Cursor:
    """The cursor when these late rows have been read."""
    xids = list(dict.fromkeys(r[0] for r in rows))
    if len(rows) < limit:
        seen = set(cursor.done).union(xids, *(s.seen for s in cursor.segments))
        if cursor.open_xid is not None:
            seen.add(cursor.open_xid)
        whole = Segment(cursor.position, snapshot.xmin, sorted(x for x in seen if x >= snapshot.xmin))
        return replace(cursor, segments=[whole], done=[], open_xid=None, open_key=None)
    done = list(cursor.done)
    if cursor.open_xid is not None and xids[0] != cursor.open_xid:
        done.append(cursor.open_xid)
    done += xids[:-1]
    return replace(cursor, done=done, open_xid=xids[-1], open_key=list(rows[-1][2:lead(source)]))


def after_forward(cursor: Cursor, source: Source, rows: list, snapshot: "Snapshot") -> Cursor:
    """The cursor when these rows behind it have been read."""
    if not rows:
        return cursor
    seen = sorted({r[0] for r in rows if r[0] >= snapshot.xmin})
    to = list(rows[-1][1:lead(source)])
    return replace(cursor, segments=[*cursor.segments, Segment(to, snapshot.xmin, seen)])


@dataclass(frozen=True)
class Snapshot:
    """pg_current_snapshot(): everything below xmin is over, nothing from xmax on has begun."""

    xmin: int
    xmax: int
    line: str  # as in Cursor
    lsn: int

    @classmethod
    def parse(cls, text: str, line: str, lsn: int) -> "Snapshot":
        xmin, xmax, _ = text.split(":")
        return cls(int(xmin), int(xmax), line, lsn)

    def nothing_since(self, cursor: Cursor) -> bool:
        """No transaction began since the cursor had read all that there was."""
        return not cursor.draining and len(cursor.segments) == 1 and cursor.segments[0].xmin == self.xmax


def behind(cursor: Cursor, now: Snapshot) -> Optional[str]:
    """Why the cursor cannot be of this database's present: text for an error, or None."""
    if cursor.line and now.line and cursor.line != now.line:
        return "the checkpoint was made on line %s of the WAL, the database is on %s (it was restored, branched or replaced)" % (cursor.line, now.line)
    if now.xmax < cursor.newest_xid():
        return "the checkpoint knows transaction %d, the database gives out %d next (it was restored or replaced)" % (cursor.newest_xid(), now.xmax)
    if now.lsn and now.lsn < cursor.lsn:
        return "the checkpoint was made at WAL byte %d, the database is at %d (it was restored or replaced)" % (cursor.lsn, now.lsn)
    return None
