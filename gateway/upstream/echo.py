"""The built-in upstream that needs no account: it says the last user message back, word by word."""

import asyncio
import json
import re
from typing import Any

from multidict import CIMultiDict

from gateway.clock import Clock
from gateway.core.encoding import decoded
from gateway.core.headers import value as header_value
from gateway.core.jsontext import dump, parse_or_none
from gateway.core.tokens import completion
from gateway.errors import BodyTooLarge, MalformedBody
from gateway.upstream.wire import Answer, Request

# A stream takes this long between two words, and no longer than that in all (seconds).
_PAUSE_S = 0.01
_PAUSES_AT_MOST_S = 2.0
_BODY_AT_MOST = 64 * 1024 * 1024


class EchoUpstream:
    """Serves chat completions like OpenAI does: streamed and not, with usage (a word is a token), and tool calls.

    It calls a tool only where `tool_choice` demands one; the argument is the last user message.
    """

    inject_usage = True

    def __init__(self, name: str, models: tuple[str, ...] | None, clock: Clock) -> None:
        self.name = name
        self.models = models
        self._clock = clock

    async def send(self, request: Request) -> Answer:
        request.on_sent()
        if request.path_qs.partition("?")[0] != "/chat/completions" or request.method != "POST":
            return _error(404, "The echo model serves chat completions only.", "not_found")
        body = _body(request)
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
            return _error(400, "messages must be a list of at least one message.", "invalid_value", "messages")
        reply = _Reply(body, f"chatcmpl-{self._clock.new_id()}", int(self._clock.now().timestamp()))
        if body.get("stream") is True:
            return _stream(reply.events())
        return _whole(200, reply.whole())

    async def close(self) -> None:
        """Nothing is open."""


class _Reply:
    def __init__(self, body: dict[str, Any], answer_id: str, created: int) -> None:
        text = _last_user_text(body["messages"])
        prompt = " ".join(_text(message.get("content")) for message in body["messages"])
        self._head = {"id": answer_id, "created": created, "model": body.get("model")}
        self._tool = _demanded_tool(body)
        self._words = re.findall(r"\s*\S+", text) or ([text] if text else [])
        self._arguments = dump({"input": text})
        self._usage = _usage(len(prompt.split()), len(self._words) or 1)
        options = body.get("stream_options")
        self._tells_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._finish = "tool_calls" if self._tool else "stop"

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._words), "refusal": None}
        if self._tool:
            message["content"] = None
            message["tool_calls"] = [self._call(self._arguments)]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage}

    def events(self) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if self._tool else "", "refusal": None}]
        if self._tool:
            deltas.append({"tool_calls": [{"index": 0, **self._call("")}]})
            deltas += [
                {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
                for piece in re.findall(r"\s*\S+", self._arguments)
            ]
        else:
            deltas += [{"content": word} for word in self._words]
        events = [self._event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        events.append(self._event([{"index": 0, "delta": {}, "finish_reason": self._finish}]))
        if self._tells_usage:
            events.append({**self._event([]), "usage": self._usage})
        return events

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}

    def _call(self, arguments: str) -> dict[str, Any]:
        return {
            "id": f"call_{self._head['id']}",
            "type": "function",
            "function": {"name": self._tool, "arguments": arguments},
        }


class _EchoAnswer:
    reason = ""

    def __init__(self, status: int, content_type: str, pieces: list[bytes], pause_s: float = 0.0) -> None:
        self.status = status
        self.headers = CIMultiDict({"Content-Type": content_type})
        self._left = pieces[::-1]
        self._pause_s = pause_s
        self._begun = False

    @property
    def ended(self) -> bool:
        return not self._left

    @property
    def ready(self) -> bool:
        return not self._begun or not self._left

    async def read(self) -> bytes:
        if self._begun and self._left:
            await asyncio.sleep(self._pause_s)
        self._begun = True
        return self._left.pop() if self._left else b""

    def close(self) -> None:
        """Nothing is open."""


def _body(request: Request) -> Any:
    try:
        return parse_or_none(decoded(request.body, header_value(request.headers, "content-encoding"), _BODY_AT_MOST))
    except (MalformedBody, BodyTooLarge):
        return None


def _whole(status: int, value: dict[str, Any]) -> _EchoAnswer:
    body = json.dumps(value).encode()
    answer = _EchoAnswer(status, "application/json", [body])
    answer.headers["Content-Length"] = str(len(body))
    return answer


def _stream(events: list[dict[str, Any]]) -> _EchoAnswer:
    pieces = [b"data: " + dump(event).encode() + b"\n\n" for event in events]
    pause_s = min(_PAUSE_S, _PAUSES_AT_MOST_S / len(events))
    return _EchoAnswer(200, "text/event-stream; charset=utf-8", [*pieces, b"data: [DONE]\n\n"], pause_s)


def _error(status: int, message: str, code: str, param: str | None = None) -> _EchoAnswer:
    return _whole(
        status,
        {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}},
    )


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    said = [message for message in messages if message.get("role") in ("user", "tool")] or messages
    return _text(said[-1].get("content"))


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(completion(content).texts)


def _demanded_tool(body: dict[str, Any]) -> str | None:
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and isinstance(function := choice.get("function"), dict):
        return str(function.get("name"))
    tools = body.get("tools")
    if choice == "required" and isinstance(tools, list) and tools and isinstance(tools[0], dict):
        function = tools[0].get("function")
        return str(function.get("name")) if isinstance(function, dict) else None
    return None


def _usage(prompt: int, generated: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}
