"""Counts tokens in a child process, which is started at first need.

Loading an encoding's ranks holds the GIL for a quarter second and takes 100 MB: not in the process that relays.
The child's side is `tokenizer_child`. Where it cannot help, the count is an estimate from the length.
"""

import asyncio
import contextlib
import json
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from typing import Any

from gateway.core.tokens import Countable, Counted, estimate

log = logging.getLogger(__name__)

_ANSWER_WITHIN_S = 30.0
_WAITING_AT_MOST = 1000


class Tokenizer:
    """One child at a time; requests queue for it."""

    def __init__(self, command: list[str] | None = None) -> None:
        self._command = command or [sys.executable, "-m", "gateway.tokenizer_child"]
        self._child: Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def count(self, model: str, wanted: Mapping[str, Countable]) -> dict[str, Counted]:
        """How many tokens each of the wanted texts has for this model. Never raises."""
        texts = {name: countable.texts for name, countable in wanted.items()}
        counted = await self._ask(model, texts) if self._waiting < _WAITING_AT_MOST else None
        if counted is None:
            counted = {name: estimate(items) for name, items in texts.items()}
        return {
            name: Counted(counted[name].tokens + countable.extra, counted[name].tokenizer)
            for name, countable in wanted.items()
        }

    async def close(self) -> None:
        """Ends the child, if there is one, after the question it is at."""
        async with self._turn:
            await self._end()

    async def _ask(self, model: str, texts: dict[str, tuple[str, ...]]) -> dict[str, Counted] | None:
        self._waiting += 1
        try:
            async with self._turn:
                answer = await self._answer({"model": model, "texts": texts})
        finally:
            self._waiting -= 1
        if "error" in answer:
            log.warning("Tokens are estimated from the length: %s", answer["error"])
            return None
        return {name: Counted(answer["counts"][name], answer["encoding"]) for name in texts}

    async def _answer(self, question: object) -> dict[str, Any]:
        """The child's answer, or what went wrong; a child whose answer did not come is ended."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await self._exchange(question)
        except (OSError, ValueError, TimeoutError) as error:
            await self._end()
            return {"error": f"{type(error).__name__} {error}"}
        except asyncio.CancelledError:
            # A half-done exchange would answer the next question.
            await self._end()
            raise

    async def _exchange(self, question: object) -> dict[str, Any]:
        if self._child is None or self._child.returncode is not None:
            await self._end()
            self._child = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(question).encode() + b"\n")
        await child.stdin.drain()
        line = await child.stdout.readline()
        if not line:
            raise OSError("the tokenizer process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.communicate()
