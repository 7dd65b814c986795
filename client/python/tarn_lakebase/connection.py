"""One connection that proves who it is with a short-lived token, and renews it by itself."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import psycopg

from .errors import LakebaseError

# A token is replaced this long before it ends, in seconds. It is looked at by Postgres when a
# connection begins, not afterwards.
RENEW_BEFORE = 120


@dataclass
class Lakebase:
    """How a database is reached. Give one of:

    instance   name of a database instance (`w.database`)
    endpoint   "projects/P/branches/B/endpoints/E" (`w.postgres`)
    conninfo   a libpq connection string, with a password or none

    With the first two, host and token come from the Databricks SDK, whose settings come from
    the environment (DATABRICKS_HOST and DATABRICKS_TOKEN, or client id and secret).
    """

    instance: Optional[str] = None
    endpoint: Optional[str] = None
    conninfo: Optional[str] = None
    dbname: str = "databricks_postgres"
    user: Optional[str] = None  # None: whoever the SDK's credentials are
    application_name: str = "tarn-lakebase/0.1"
    workspace: Any = None  # a databricks.sdk.WorkspaceClient; None: made when needed
    connect_timeout: int = 30  # seconds; a sleeping compute wakes within it
    clock: Callable[[], float] = time.time
    _token: str = field(default="", repr=False)
    _ends: float = 0.0
    _host: str = ""
    _user: str = ""

    def __post_init__(self):
        if sum(x is not None for x in (self.instance, self.endpoint, self.conninfo)) != 1:
            raise LakebaseError("give exactly one of instance, endpoint and conninfo")

    def connect(self) -> psycopg.Connection:
        """A new connection, with a token that is good for a while."""
        if self.conninfo is not None:
            return psycopg.connect(self.conninfo, connect_timeout=self.connect_timeout, application_name=self.application_name)
        if not self._token or self.clock() > self._ends - RENEW_BEFORE:
            self._renew()
        return psycopg.connect(
            host=self._host, dbname=self.dbname, user=self.user or self._user, password=self._token, sslmode="require",
            connect_timeout=self.connect_timeout, application_name=self.application_name)

    def _renew(self):
        if self.workspace is None:
            try:
                from databricks.sdk import WorkspaceClient
            except ImportError as e:
                raise LakebaseError("connecting by instance or endpoint needs the package databricks-sdk: pip install 'tarn-lakebase[databricks]'") from e
            self.workspace = WorkspaceClient()
        w = self.workspace
        if self.instance is not None:
            self._host = w.database.get_database_instance(name=self.instance).read_write_dns
            credential = w.database.generate_database_credential(request_id=str(uuid.uuid4()), instance_names=[self.instance])
            ends = credential.expiration_time
        else:
            self._host = w.postgres.get_endpoint(name=self.endpoint).status.hosts.host
            credential = w.postgres.generate_database_credential(endpoint=self.endpoint)
            ends = credential.expire_time
        self._user = self._user or w.current_user.me().user_name
        self._token = credential.token
        self._ends = _seconds(ends)


def _seconds(expire_time) -> float:
    """An expiry as the SDK gives it: RFC 3339 text, or a timestamp object."""
    if isinstance(expire_time, str):
        from datetime import datetime

        text = expire_time.replace("Z", "+00:00")
        head, dot, rest = text.partition(".")
        if dot:  # fromisoformat of older Pythons wants six digits
            digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
            text = head + "." + digits[:6].ljust(6, "0") + rest[len(digits):]
        return datetime.fromisoformat(text).timestamp()
    if hasattr(expire_time, "timestamp"):
        return expire_time.timestamp()
    return float(expire_time.seconds)
