"""Admits the calls of keys that have limits."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from gateway.clock import Clock
from gateway.core.limits import KeyLimits, Refusal
from gateway.core.limits import reserve as most_it_may_cost
from gateway.core.prices import Price
from gateway.errors import LimitReached, StoreUnavailable
from gateway.recorder import Caller
from gateway.store.store import Store

# By then an admission is committed, unless the store is in trouble.
_WITHIN_S = 2.0
_LOOK_EVERY_S = 0.05
# Of what time does not heal.
_NEVER_S = 24 * 60 * 60

FindPrice = Callable[[list[str], datetime, int], Price | None]


class Limiter:
    """Decides in the database, so that all workers decide together."""

    def __init__(self, store: Store, find_price: FindPrice, clock: Clock) -> None:
        self._store = store
        self._find_price = find_price
        self._clock = clock

    async def admit(
        self,
        unique_id: str,
        caller: Caller,
        limits: KeyLimits,
        models: list[str],
        request: Mapping[str, Any],
        request_bytes: int,
    ) -> bool:
        """Makes room for a call until its span is stored, which must say that it was `reserved`.

        False: nobody knows, since the store takes nothing; a store in trouble never breaks a call. Raises
        LimitReached.
        """
        now = self._clock.now()
        reserve = 0 if limits.budget_picos is None else self._reserve(models, request, request_bytes, now)
        try:
            admission = self._store.admit(unique_id, caller.organization_id, caller.name, limits, reserve, now)
        except StoreUnavailable:
            return False
        waited = 0.0
        while not admission.done.done():
            if self._store.trouble is not None or waited >= _WITHIN_S:
                return True
            await asyncio.wait([admission.done], timeout=_LOOK_EVERY_S)
            waited += _LOOK_EVERY_S
        try:
            admission.done.result()
        except sqlite3.Error:
            return False
        if admission.refusal is not None:
            raise _reached(admission.refusal)
        return True

    def _reserve(self, models: list[str], request: Mapping[str, Any], request_bytes: int, now: datetime) -> int:
        price = self._find_price(models, now, request_bytes) if models else None
        if price is None:
            what = (
                f"the model '{models[0]}' has no price: give it one under [prices]"
                if models
                else "what this request may cost is unknown: it names no model"
            )
            message = f"This key has a budget (budget_usd), and {what}."
            raise _reached(Refusal(message, "model_not_priced", _NEVER_S, retry_helps=False))
        return most_it_may_cost(price, request_bytes, request)


def _reached(refusal: Refusal) -> LimitReached:
    return LimitReached(
        refusal.message, code=refusal.code, retry_after_s=refusal.retry_after_s, retry_helps=refusal.retry_helps
    )
