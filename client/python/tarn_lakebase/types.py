"""What becomes of Postgres types. Unknown ones are strings in Postgres's own text form.

Integers, floats, booleans and bytea come as Postgres sends them; everything else is asked for
as text, because there are values no client type holds (infinity, years before 1 and after
9999, NaN in numeric). Such a value becomes None, and the batch says which row had it.
"""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any, Callable, Optional

# Postgres type: (Arrow's name, Spark's name)
_PLAIN = {
    "boolean": ("bool_", "boolean"), "smallint": ("int16", "smallint"), "integer": ("int32", "int"), "bigint": ("int64", "bigint"),
    "real": ("float32", "float"), "double precision": ("float64", "double"), "bytea": ("binary", "binary"),
}


def decimal_of(pg_type: str) -> Optional[tuple]:
    """Precision and scale of a numeric that a decimal of 38 digits holds."""
    if not pg_type.startswith("numeric("):
        return None
    precision, scale = (int(x) for x in pg_type[len("numeric("):-1].split(","))
    return (precision, scale) if precision <= 38 and 0 <= scale <= precision else None


def _is_timestamp(pg_type: str) -> bool:
    return pg_type.startswith("timestamp") and not pg_type.endswith("[]")


def arrow_type(pg_type: str):
    import pyarrow as pa

    if pg_type in _PLAIN:
        return getattr(pa, _PLAIN[pg_type][0])()
    if pg_type == "date":
        return pa.date32()
    if _is_timestamp(pg_type):
        return pa.timestamp("us", tz="UTC" if pg_type.endswith("with time zone") else None)
    found = decimal_of(pg_type)
    return pa.decimal128(*found) if found else pa.string()


def spark_type(pg_type: str) -> str:
    if pg_type in _PLAIN:
        return _PLAIN[pg_type][1]
    if pg_type == "date":
        return "date"
    if _is_timestamp(pg_type):
        return "timestamp" if pg_type.endswith("with time zone") else "timestamp_ntz"
    found = decimal_of(pg_type)
    return "decimal(%d,%d)" % found if found else "string"


def as_text(pg_type: str) -> bool:
    """The column is asked for as text."""
    return pg_type not in _PLAIN


def decoder(pg_type: str) -> Optional[Callable[[str], Any]]:
    """Reads the text form, or raises ValueError for a value that has no Python form. None: nothing to do."""
    if pg_type == "date":
        return date.fromisoformat
    if _is_timestamp(pg_type):
        return _zoned if pg_type.endswith("with time zone") else _moment
    return _number if decimal_of(pg_type) else None


def _moment(text: str) -> datetime:
    head, dot, fraction = text.partition(".")
    if not dot:
        return datetime.fromisoformat(head)
    return datetime.fromisoformat("%s.%s" % (head, fraction.ljust(6, "0")))


def _zoned(text: str) -> datetime:
    if not text.endswith("+00"):  # the session is in UTC
        raise ValueError("%r is outside of the years 1 to 9999" % text)
    return _moment(text[:-3]).replace(tzinfo=timezone.utc)


def _number(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError("%s is no decimal" % text)
    return value
