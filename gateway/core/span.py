"""The span: every field under its one public name, with its type and default.

The fields are those of Respan's create-span API; the few it lacks (`response_model`, `upstream`) are ours.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from gateway.core import accepted
from gateway.core import usage as usage_fields
from gateway.core.jsontext import is_unicode, parse_or_none
from gateway.errors import InvalidSpan

CUSTOMER_IDENTIFIER_MAX = 254


def _number(value: object) -> object:
    # Python takes true for 1, JSON does not; and an integer may be too large for a float.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if isinstance(value, int):
        try:
            float(value)
        except OverflowError:
            raise ValueError("must be a finite number") from None
    return value


def _from_json(value: object) -> object:
    # Some clients send objects and lists as JSON strings.
    if isinstance(value, str) and isinstance(parsed := parse_or_none(value), (dict, list)):
        return parsed
    return value


def _format_object(value: object) -> object:
    value = _from_json(value)
    return {"type": value} if isinstance(value, str) else value


def _usage(value: dict[str, Any]) -> dict[str, Any]:
    if wrong := usage_fields.mistakes(value):
        raise ValueError(f"must have whole numbers in {', '.join(wrong)}")
    return value


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999") from None


def _identifier(value: str) -> str:
    if value.strip("/") in RESERVED_IDS:
        raise ValueError(f"must not be one of {', '.join(sorted(RESERVED_IDS))}: these are routes")
    if not is_unicode(value):
        raise ValueError("must be text without lone surrogates")
    if value.endswith("/") or {".", ".."} & set(value.split("/")):
        raise ValueError("must have no part that is . or .., and no slash at its end: it becomes part of a path")
    return value


RESERVED_IDS = frozenset(
    {
        *("list", "audit", "summary", "bulk", "create", "groups", "series", "live", "values", "export"),
        *("batch-update", "batch/create"),
    }
)

Text = Annotated[str, Field(strict=True)]
Truth = Annotated[bool, accepted.TRUTH]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False), accepted.NUMBER]
Whole = Annotated[int, BeforeValidator(_number), Field(ge=-(2**63), le=2**63 - 1), accepted.WHOLE, accepted.WHOLE_SHOWN]
Object = Annotated[dict[str, Any], BeforeValidator(_from_json), accepted.OBJECT]
Objects = Annotated[list[dict[str, Any]], BeforeValidator(_from_json), accepted.OBJECTS]
Time = Annotated[datetime, AfterValidator(_utc), accepted.TIME]
Identifier = Annotated[Text, AfterValidator(_identifier), accepted.identifier(RESERVED_IDS)]
Usage = Annotated[Object, AfterValidator(_usage), accepted.usage(usage_fields.COUNTS)]
Format = Annotated[dict[str, Any], BeforeValidator(_format_object), accepted.OBJECT_OR_TYPE]


class Span(BaseModel):
    """One LLM call, or one step around it. Fields that are no part of it are kept as extras."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    # Who and where
    unique_id: Identifier | None = None
    organization_id: Text | None = None
    organization_key_id: Text | None = None
    organization_key_name: Text | None = None
    environment: Text | None = None
    log_method: Text | None = None

    # What was called
    model: Text
    response_model: Text | None = None
    upstream: Text | None = None
    provider_id: Text | None = None
    log_type: Text = "chat"
    stream: Truth = False

    # How it went
    status: Text | None = None
    status_code: Whole = 200
    error_code: Text | None = None
    error_message: Text | None = None
    warnings: Text | Object | None = None
    start_time: Time | None = None
    timestamp: Time | None = None
    latency: Number | None = None
    time_to_first_token: Number | None = None
    tokens_per_second: Number | None = None
    routing_time: Number | None = None

    # What it used
    usage: Usage | None = None
    prompt_tokens: Whole | None = None
    completion_tokens: Whole | None = None
    total_request_tokens: Whole | None = None
    prompt_cache_hit_tokens: Whole | None = None
    prompt_cache_creation_tokens: Whole | None = None
    reasoning_tokens: Whole | None = None
    cost: Number | None = None
    prompt_unit_price: Number | None = None
    completion_unit_price: Number | None = None

    # Whose it is, and what it belongs to
    customer_identifier: Annotated[Text, Field(max_length=CUSTOMER_IDENTIFIER_MAX)] | None = None
    customer_email: Text | None = None
    customer_name: Text | None = None
    customer_params: Object | None = None
    thread_identifier: Text | None = None
    session_identifier: Text | None = None
    custom_identifier: Text | None = None
    group_identifier: Text | None = None
    evaluation_identifier: Text | None = None
    trace_unique_id: Text | None = None
    trace_group_identifier: Text | None = None
    span_unique_id: Text | None = None
    span_parent_id: Text | None = None
    span_name: Text | None = None
    span_workflow_name: Text | None = None
    gateway_log_id: Text | None = None
    metadata: Object | None = None
    properties: Object | None = None
    positive_feedback: Truth | None = None
    note: Text | None = None
    category: Text | None = None

    # What went in and came out
    input: Any = None
    output: Any = None
    messages: Objects | None = None
    prompt_messages: Objects | None = None
    completion_message: Object | None = None
    completion_messages: Objects | None = None
    tool_calls: Objects | None = None
    full_request: Object | None = None
    full_response: Object | None = None

    # Parameters of the call
    tools: Objects | None = None
    tool_choice: Text | Object | None = None
    response_format: Format | None = None
    temperature: Number = 1.0
    top_p: Number = 1.0
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    max_tokens: Whole | None = None
    stop: Text | list[Text] | None = None
    prompt_id: Text | None = None
    prompt_name: Text | None = None
    is_custom_prompt: Truth = False
    variables: Object | None = None
    disable_log: Truth | None = None

    # What is set is ours or was validated; pydantic would look up each time how the field is to be set.
    __setattr__ = object.__setattr__

    @property
    def extras(self) -> dict[str, Any]:
        """The fields that were sent and that no public name stands for."""
        assert self.model_extra is not None
        return self.model_extra


# Kept: pydantic makes it anew each time it is asked for.
FIELDS = frozenset(Span.model_fields)
# Other forms of input and output, which none is kept in.
LEGACY = ("messages", "prompt_messages", "completion_message", "completion_messages")
# What `disable_log` keeps out of the store.
CONTENT = (
    "input",
    "output",
    "tool_calls",
    "full_request",
    "full_response",
    "tools",
    "tool_choice",
    "response_format",
    "stop",
    "variables",
)


def validate(fields: Mapping[str, Any]) -> Span:
    """A span from canonical field names. Raises InvalidSpan with every bad field named."""
    known = {name: value for name, value in fields.items() if name in FIELDS}
    try:
        span = Span.model_validate(known)
    except ValidationError as error:
        raise InvalidSpan(_explain(error)) from None
    if len(known) < len(fields):
        # Past pydantic, which takes no name with a lone surrogate.
        span.extras.update((name, value) for name, value in fields.items() if name not in known)
    return span


def validate_leniently(fields: Mapping[str, Any]) -> tuple[Span, dict[str, list[str]]]:
    """A span without the fields that have a wrong type, and what was wrong with those."""
    try:
        return validate(fields), {}
    except InvalidSpan as error:
        kept = {name: value for name, value in fields.items() if name not in error.errors}
        return validate(kept), error.errors


def of_call(measured: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[Span, dict[str, list[str]]]:
    """A span of what we measured, taken as it is, and of what others told, without what has a wrong type there, and
    what was wrong with that.

    The same as `validate_leniently` of both, which looks at every field there is.
    """
    checked: dict[str, Any] = {}
    try:
        for name, value in told.items():
            if (type(value) is float and name in _NUMBERS and math.isfinite(value)) or (
                type(value) is int and name in _WHOLES and -(2**63) <= value < 2**63
            ):
                # Most are; and to ask pydantic takes longer than all else here.
                checked[name] = value
                continue
            new = _check_of(name)(value)
            # What is the same stays the same object: it may be a part of another field.
            checked[name] = value if type(new) is type(value) and new == value else new
    except (ValidationError, KeyError):
        return validate_leniently({**told, **measured})
    return _made({**_blank, **checked, **measured}), {}


def _made(fields: dict[str, Any]) -> Span:
    """A span of all these fields, as `model_copy` makes one of another, in a fifth of its time."""
    span = Span.__new__(Span)
    span.__dict__ = fields
    span.__pydantic_extra__ = {}
    span.__pydantic_fields_set__ = set()
    span.__pydantic_private__ = None
    return span


@cache
def _check_of(name: str) -> Callable[[Any], Any]:
    return TypeAdapter(_types()[name]).validator.validate_python


@cache
def _types() -> dict[str, Any]:
    return get_type_hints(Span, include_extras=True)


_NUMBERS = frozenset({"temperature", "top_p", "frequency_penalty", "presence_penalty"})
_WHOLES = frozenset({"max_tokens"})
_blank = vars(Span(model=""))


def _explain(error: ValidationError) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for mistake in error.errors(include_url=False, include_input=False):
        texts = found.setdefault(str(mistake["loc"][0]), [])
        text = _sentence(str(mistake["type"]), str(mistake["msg"]), mistake.get("ctx", {}))
        if text not in texts:
            texts.append(text)
    return found


def _sentence(kind: str, message: str, context: Mapping[str, Any]) -> str:
    match kind:
        case "missing":
            return "This field is required."
        case "string_too_long":
            return f"Must have at most {context['max_length']} characters."
        case "value_error":
            return _as_sentence(str(context["error"]))
        case "greater_than_equal" | "less_than_equal" | "int_parsing_size":
            return "Must fit in 64 bits."
    return _as_sentence(message.removeprefix("Input ").replace("should be", "must be").replace("dictionary", "object"))


def _as_sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def is_finite(value: float) -> bool:
    """Whether a number computed from sent ones can be stored."""
    return math.isfinite(value)
