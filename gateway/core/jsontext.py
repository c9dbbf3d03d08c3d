"""JSON in and out, for text that comes from anywhere."""

import codecs
import json
import math
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from gateway.errors import MalformedBody

# NaN and Infinity are no JSON, but Python programs send them. As strings they keep their text in free-form
# fields, and a typed field turns them down by name.
_decoder = json.JSONDecoder(parse_constant=str)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


# Python turns no text of more than some thousand digits into an integer: such a one stays a string, too.
_long_decoder = json.JSONDecoder(parse_constant=str, parse_int=_integer)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ascii_encoder = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))

# UTF-32 first: its little-endian mark begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(body: bytes) -> tuple[str, bytes, str]:
    """The text of a JSON body, its byte order mark and the name of its encoding.

    UTF-8, 16 or 32, told apart as RFC 4627 section 3 does. Raises MalformedBody.
    """
    mark, encoding = next(
        ((mark, name) for mark, name in _MARKS if body.startswith(mark)), (b"", json.detect_encoding(body))
    )
    try:
        return body[len(mark) :].decode(encoding, "surrogatepass"), mark, encoding
    except UnicodeDecodeError as error:
        at = len(mark) + error.start
        raise MalformedBody(f"The body is not valid {encoding.upper()} text (byte {at}).") from None


def parse(body: bytes | str) -> Any:
    """Any JSON value. Raises MalformedBody."""
    try:
        # Seven times as fast as Python's own, and the same for all that it takes. What it does not take is read again,
        # to be sure, and to say where the mistake is: NaN, lone surrogates, other encodings, deep nesting.
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except (ValueError, TypeError):
        return _parse_slowly(body)


def _parse_slowly(body: bytes | str) -> Any:
    text = body if isinstance(body, str) else decode_text(body)[0]
    try:
        try:
            return _decoder.decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return _long_decoder.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None


def parse_object(body: bytes | str) -> dict[str, Any]:
    """A JSON object. Raises MalformedBody."""
    value = parse(body)
    if not isinstance(value, dict):
        raise MalformedBody("The body must be a JSON object.")
    return value


def parse_or_none(body: bytes | str) -> Any:
    """Any JSON value, or None where there is none."""
    try:
        return parse(body)
    except MalformedBody:
        return None


def parse_at(text: str, start: int) -> Any:
    """The JSON value that begins at `start`, whatever follows it, or None where there is none."""
    try:
        return _decoder.raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None


def dump(value: Any) -> str:
    """Compact JSON that every reader and SQLite can take.

    Numbers beyond a double become their text, lone surrogates their escapes. Raises MalformedBody for a value
    nested too deeply.
    """
    text = _dump_fast(value)
    return _dump_slowly(value) if text is None else text


# What is nested deeper than this the fast writer takes in no case.
FAST_DEPTH = 255


def _dump_fast(value: Any) -> str | None:
    """The value as `dump` writes it; None for lone surrogates, and for deep nesting."""
    try:
        # Five times as fast as Python's own.
        return to_json(value, inf_nan_mode="strings").decode()
    except PydanticSerializationError:
        return None


def _dump_slowly(value: Any) -> str:
    try:
        try:
            text = _encoder.encode(value)
        except ValueError:
            value = _with_finite_numbers(value)
            text = _encoder.encode(value)
        return text if is_unicode(text) else _ascii_encoder.encode(value)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None


class Texts:
    """JSON texts of values that do not change, each made once."""

    def __init__(self) -> None:
        # With the value, which must live as long as its id stands for it; and whether that may be nested deeply.
        self._made: dict[int, tuple[Any, str, bool]] = {}

    def of(self, value: Any) -> str:
        """The value as `dump` writes it. Raises MalformedBody."""
        return (self._made.get(id(value)) or self._make(value))[1]

    def may_be_deep(self, value: Any) -> bool:
        """Whether the value may be nested deeper than FAST_DEPTH. Raises MalformedBody."""
        return (self._made.get(id(value)) or self._make(value))[2]

    def _make(self, value: Any) -> tuple[Any, str, bool]:
        text = _dump_fast(value)
        made = (value, _dump_slowly(value), True) if text is None else (value, text, False)
        self._made[id(value)] = made
        return made


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8, that is, holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_finite_numbers(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: _with_finite_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_finite_numbers(item) for item in value]
    return value
