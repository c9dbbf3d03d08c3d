"""Drafts to put into a store."""

from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.core.complete import Draft, complete
from gateway.core.span import validate
from gateway.store.store import Opened, Store

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def draft(unique_id: str, organization_id: str = "o", after_s: float = 0, **fields: Any) -> Draft:
    """A span that can be stored."""
    made = Draft(
        validate(
            {
                "model": "m",
                "unique_id": unique_id,
                "organization_id": organization_id,
                "environment": "prod",
                "timestamp": NOON + timedelta(seconds=after_s),
                **fields,
            }
        )
    )
    complete(made, NOON)
    return made


def open_call(store: Store, fields: dict[str, Any]) -> Opened | None:
    """Opens a row of these columns."""
    return store.open(fields["organization_id"], fields["start_time"], fields)
