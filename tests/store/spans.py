"""Drafts to put into a store."""

from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.core.complete import Draft, complete
from gateway.core.span import validate

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
