"""What a table looks like to a reader: its columns, its key, its name."""

from __future__ import annotations

from typing import Optional, Sequence

from psycopg import sql

from .cursor import Column, Source
from .ddl import table_sql
from .errors import LakebaseError

# The column that `track_changes` adds: the transaction of the row's last change.
XID_COLUMN = "_xid"

_RELATION = "SELECT c.oid, c.relkind::text FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"

_COLUMNS = """SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_catalog.pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""

# The primary key, or else a unique index that tells every row from every other.
_KEY = """SELECT array_agg(a.attname ORDER BY k.ord)
FROM pg_catalog.pg_index i, LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k(attnum, ord)
LEFT JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum AND a.attrelid = %s
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
GROUP BY i.indexrelid, i.indisprimary HAVING bool_and(a.attnotnull IS TRUE)
ORDER BY i.indisprimary DESC, count(*), i.indexrelid LIMIT 1"""


def describe(conn, table_name: str, checkpoint_column: str, key_columns: Optional[Sequence[str]]) -> Source:
    """Reads the table's definition. The connection's search_path finds an unqualified name."""
    table = table_sql(table_name)
    found = conn.execute(_RELATION, [table.as_string(conn)]).fetchone()
    if found is None:
        raise LakebaseError("there is no table %s here; a name without a schema is looked for along search_path" % table_name)
    oid, kind = found
    if kind not in ("r", "p"):
        raise LakebaseError("%s is no table; rows of views and foreign tables do not say which transaction wrote them" % table_name)
    # Types outside of pg_catalog are then named with their schema.
    with conn.transaction():
        conn.execute("SET LOCAL search_path = pg_catalog")
        rows = conn.execute(_COLUMNS, [oid]).fetchall()
        key = conn.execute(_KEY, [oid, oid]).fetchone()
    columns = {name: Column(name, pg_type) for name, pg_type, _ in rows}
    required = {name for name, _, not_null in rows if not_null}
    if checkpoint_column not in columns:
        raise LakebaseError("%s has no column %s to read along; it has %s" % (table_name, checkpoint_column, ", ".join(columns)))
    names = list(key_columns or (key[0] if key else []))
    if not names:
        raise LakebaseError("%s has neither a primary key nor a unique index over columns that are NOT NULL: name columns that tell its rows apart with key_columns" % table_name)
    for name in names:
        if name not in required:
            raise LakebaseError("key column %s of %s %s" % (name, table_name, "may be NULL" if name in columns else "does not exist"))
    tracked = columns.get(XID_COLUMN)
    return Source(
        table, tuple(c for c in columns.values() if c.name != XID_COLUMN), columns[checkpoint_column], tuple(columns[n] for n in names),
        XID_COLUMN if tracked and tracked.type == "xid8" and XID_COLUMN in required else None)


def track(name: str) -> list:
    """Statements that make a table keep the transaction of each row's last change, with an index."""
    table = table_sql(name)
    function = sql.Identifier(*table._obj[:-1], "tarn_row_changed")
    column = sql.Identifier(XID_COLUMN)
    return [
        sql.SQL(
            "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS"
            " $$BEGIN NEW._xid := pg_current_xact_id(); RETURN NEW; END$$").format(function),
        # NOT NULL says that it is whole. Older rows count as written by the transaction that adds the column.
        sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} xid8 NOT NULL DEFAULT pg_current_xact_id()").format(table, column),
        sql.SQL("DROP TRIGGER IF EXISTS tarn_row_changed ON {}").format(table),
        sql.SQL("CREATE TRIGGER tarn_row_changed BEFORE INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION {}()").format(table, function),
    ]
