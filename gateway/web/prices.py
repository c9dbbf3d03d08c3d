"""What a model's tokens cost."""

from aiohttp import web

from gateway.clock import Clock
from gateway.errors import MalformedBody
from gateway.recorder import Caller, Recorder
from gateway.web.questions import time_in, whole_in
from gateway.web.replies import json_reply

PRICES = ("prompt", "completion", "cached_prompt", "cache_creation")
_PARAMETERS = frozenset({"model", "response_model", "time", "prompt_tokens"})


class PriceHandlers:
    """What the route of prices does."""

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self._recorder = recorder
        self._clock = clock

    async def price(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """The price by which a call of a model is priced now; USD per 1 million tokens, null where there is none."""
        query = request.query
        if unknown := sorted(set(query) - _PARAMETERS):
            raise MalformedBody(f"{', '.join(unknown)}: not supported; use {', '.join(sorted(_PARAMETERS))}.")
        if not query.get("model"):
            raise MalformedBody("model: say whose price.")
        models = [name for name in (query.get("response_model"), query["model"]) if name]
        at = time_in(request, "time") or self._clock.now()
        found = self._recorder.explain_price(models, at, whole_in(request, "prompt_tokens", 0))
        if found is None:
            return json_reply({"price": None})
        prices = {name: None if (usd := getattr(found.price, name)) is None else float(usd) for name in PRICES}
        return json_reply({"price": {"model": found.model, "source": found.source, **prices}})
