"""Errors of this package; those of Postgres come through as psycopg raises them."""


class LakebaseError(Exception):
    """A request that cannot be done; the message says why and what to do."""


class StaleCheckpoint(LakebaseError):
    """Another program moved the checkpoint of the same source meanwhile."""
