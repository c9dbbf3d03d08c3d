"""What a request to the proxy is about, told from its path and body."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# The last part of the path → (log_type, dialect of the answer)
_KINDS = {
    "chat/completions": ("chat", "chat"),
    "completions": ("completion", "completion"),
    "embeddings": ("embedding", "embedding"),
    "responses": ("response", "response"),
    "messages": ("chat", "message"),
    "audio/speech": ("speech", "speech"),
    "audio/transcriptions": ("transcription", "transcription"),
    "audio/translations": ("transcription", "transcription"),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """`log_type` of the span; `dialect` of the answer."""

    log_type: str
    dialect: str

    @property
    def is_chat(self) -> bool:
        """Whether Respan's fields may stand at the top level of the body."""
        return self.dialect == "chat"

    @property
    def has_usage_chunk(self) -> bool:
        """Whether a stream of this kind tells its usage only when asked."""
        return self.dialect in ("chat", "completion")

    @property
    def is_json(self) -> bool:
        """Whether an answer that is no JSON object means that something is wrong."""
        return self.dialect in ("chat", "completion", "embedding", "response", "message")


@lru_cache(maxsize=256)
def kind_of(path: str) -> Kind:
    """`path` is what follows `/v1/`."""
    return Kind(*_KINDS.get(path.strip("/"), ("other", "other")))


def input_of(kind: Kind, body: Mapping[str, Any]) -> Any:
    """What the span's input is."""
    match kind.dialect:
        case "chat":
            return body.get("messages")
        case "message":
            system = body.get("system")
            messages = body.get("messages")
            if system and isinstance(messages, list):
                return [{"role": "system", "content": system}, *messages]
            return messages
        case "completion":
            return body.get("prompt")
        case "embedding" | "response" | "speech":
            return body.get("input")
    return None


def output_of(kind: Kind, response: Any) -> Any:
    """What the span's output is."""
    if not isinstance(response, dict):
        return None
    match kind.dialect:
        case "chat":
            return _first_or_all([choice.get("message") for choice in _objects(response.get("choices"))])
        case "completion":
            return _first_or_all([choice.get("text") for choice in _objects(response.get("choices"))])
        case "message":
            if "content" not in response:
                return None
            return {"role": response.get("role", "assistant"), "content": response["content"]}
        case "response":
            return response.get("output")
        case "embedding":
            return [item.get("embedding") for item in _objects(response.get("data"))] or None
        case "transcription":
            return response.get("text")
    return None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _first_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values or None
