"""Safe definitions: names are quoted, types come from a list, nothing waits long for a lock."""

from __future__ import annotations

import re
from typing import Mapping, Optional, Sequence

from psycopg import sql

from .errors import LakebaseError

# Types that may be asked for, beside arrays of them. varchar, char, numeric and times take numbers.
_TYPES = {
    "bigint", "bigserial", "boolean", "bytea", "char", "cidr", "date", "double precision", "inet", "int", "integer", "interval", "json", "jsonb", "macaddr",
    "numeric", "real", "serial", "smallint", "text", "time", "timestamp", "timestamp with time zone", "timestamp without time zone", "timestamptz", "tsvector",
    "uuid", "varchar", "xid8", "xml",
}
_TYPE = re.compile(r"^([a-z][a-z0-9 ]*?)\s*(\(\s*\d+\s*(?:,\s*\d+\s*)?\))?((?:\s*\[\])*)$")
LOCK_TIMEOUT = "5s"


def type_sql(name: str) -> sql.SQL:
    """A type from the list as SQL."""
    found = _TYPE.match(" ".join(name.lower().split()))
    if not found or found.group(1) not in _TYPES:
        raise LakebaseError("type %r is not one that a column may be given here; execute_ddl takes any statement" % name)
    return sql.SQL(found.group(1) + (found.group(2) or "") + found.group(3).replace(" ", ""))


def table_sql(name: str) -> sql.Identifier:
    """schema.table or table, each part with its case; a part with a dot in it is written in double quotes."""
    parts = [p[1:-1].replace('""', '"') if p.startswith('"') else p for p in re.findall(r'"(?:[^"]|"")+"|[^."]+', name)]
    if not 1 <= len(parts) <= 2 or ".".join('"%s"' % p.replace('"', '""') for p in parts).count("\x00"):
        raise LakebaseError("%r does not name a table: want table or schema.table" % name)
    return sql.Identifier(*parts)


def create_table(name: str, columns: Mapping[str, str], primary_key: Sequence[str]) -> sql.Composable:
    unknown = [c for c in primary_key if c not in columns]
    if unknown:
        raise LakebaseError("primary key column %s is not among the columns" % unknown[0])
    items = [sql.SQL("{} {}").format(sql.Identifier(c), type_sql(t)) for c, t in columns.items()]
    if primary_key:
        items.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, primary_key))))
    return sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(table_sql(name), sql.SQL(", ").join(items))


def add_column(name: str, column: str, column_type: str) -> sql.Composable:
    return sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}").format(table_sql(name), sql.Identifier(column), type_sql(column_type))


def index_name(name: str, columns: Sequence[str], given: Optional[str]) -> str:
    if given:
        return given
    table = table_sql(name)._obj[-1]
    return ("%s_%s_idx" % (table, "_".join(columns))).encode()[:63].decode(errors="ignore")


def create_index(name: str, columns: Sequence[str], index: str, unique: bool) -> sql.Composable:
    if not columns:
        raise LakebaseError("an index needs a column")
    return sql.SQL("CREATE {}INDEX CONCURRENTLY IF NOT EXISTS {} ON {} ({})").format(
        sql.SQL("UNIQUE " if unique else ""), sql.Identifier(index), table_sql(name), sql.SQL(", ").join(map(sql.Identifier, columns)))
