"""The schema and its version: creating it, upgrading an older one, refusing a newer one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, desc, insert, inspect, or_, select, text, update

from voicecall.errors import StoreError

from .tables import calls, deadlines, metadata, schema_version

__all__ = ["STEPS", "prepare_schema"]

Step = Callable[[Connection], None]


def _nearest_deadlines(connection: Connection) -> None:
    """Version 2: only the nearest deadline of a call, and no index of processed keys by age, since
    nearly all of them are old."""
    nearest_last = select(deadlines).order_by(desc(deadlines.c.at), desc(deadlines.c.kind))
    nearest = {row["call_id"]: dict(row) for row in connection.execute(nearest_last).mappings()}
    deadlines.drop(connection)
    deadlines.create(connection)
    if nearest:
        connection.execute(insert(deadlines), list(nearest.values()))
    connection.execute(text("DROP INDEX processed_keys_at"))


def _refused_apart(connection: Connection) -> None:
    """Version 3: refused calls are marked, and indexed by that."""
    whole = calls.c.refused.type.compile(connection.dialect)
    connection.execute(text(f"ALTER TABLE calls ADD COLUMN refused {whole} NOT NULL DEFAULT 0"))
    # The same as CallRecord.refused. No text in the document can match: its quotes are escaped.
    has = calls.c.document.contains
    details = [has(f'"end_detail":"{detail}"') for detail in ("policy", "capacity", "shutdown")]
    refused = (has('"direction":"inbound"'), has('"answered_at":null'), or_(*details))
    connection.execute(update(calls).where(calls.c.live == 0, *refused).values(refused=1))
    connection.execute(text("DROP INDEX calls_live"))
    for index in calls.indexes:
        if index.name == "calls_live":
            index.create(connection)


STEPS: Sequence[Step] = (_nearest_deadlines, _refused_apart)
"""``STEPS[n - 1]`` turns a schema of version ``n`` into one of version ``n + 1``."""


def prepare_schema(
    connection: Connection, *, name: str = "the store", steps: Sequence[Step] = STEPS
) -> int:
    """Create or upgrade the tables in one transaction and return their version.

    Raises :exc:`StoreError`, whose message begins with ``name``, if the database was created by a
    newer program or its version cannot be determined.
    """
    newest = 1 + len(steps)
    with connection.begin():
        if not inspect(connection).has_table(schema_version.name):
            metadata.create_all(connection)
            connection.execute(insert(schema_version), {"version": newest})
            return newest
        version = connection.execute(select(schema_version.c.version)).scalar()
        if version is None or version < 1:
            raise StoreError(
                f"{name}: the schema has no version: the database is damaged; use a backup or"
                " another store"
            )
        if version > newest:
            raise StoreError(
                f"{name}: the schema has version {version}, this program supports versions up to "
                f"{newest}: use a newer voicecall or another store"
            )
        for step in steps[version - 1 :]:
            step(connection)
        if version < newest:
            connection.execute(update(schema_version), {"version": newest})
        return newest
