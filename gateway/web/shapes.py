"""The JSON Schemas of an OpenAPI document as HTML to read: what a value is in a few words, and its fields as a list."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

Json = dict[str, Any]

# What each keyword that narrows a value adds to the words for it.
_LIMITS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "up to {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "pattern": "of the form {}",
}
# Their names say it already.
_RANGE_OF_FORMAT = {"int64": ("minimum", "maximum")}
# Names that fit beside what is said of them.
_FIT = 6
_WITHIN = ("items", "additionalProperties", "contentSchema")


def code(value: Any) -> str:
    """A JSON value, as it is written."""
    return f"<code>{escape(json.dumps(value, ensure_ascii=False))}</code>"


def name_of(reference: str) -> str:
    """The component that a reference names."""
    return reference.rsplit("/", 1)[1]


def is_schema(value: Any) -> bool:
    """Whether a schema says anything."""
    return isinstance(value, dict) and bool(value)


class Shapes:
    """The schemas of one document. Each component is shown once, where it is met first; elsewhere stands a link to it.

    `elsewhere`: those that get a place of their own, and are links wherever they are met.
    """

    def __init__(self, components: Json, elsewhere: set[str]) -> None:
        self._components = components
        self._taken = set(elsewhere)

    def words(self, schema: Any) -> str:
        """What a value is, in a few words."""
        if not is_schema(schema):
            return "anything"
        if "$ref" in schema:
            name = name_of(schema["$ref"])
            return f'<a href="#{anchor(name)}">{escape(name)}</a>'
        if "const" in schema:
            return code(schema["const"])
        if "enum" in schema:
            return f"one of {' '.join(map(code, schema['enum']))}"
        for keyword, joined_by in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
            if keyword in schema:
                return joined_by.join(dict.fromkeys(map(self._part, schema[keyword])))
        kinds = schema.get("type", "object" if has_fields(schema) else "anything")
        said = " or ".join(self._kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))
        return ", ".join([said, *_limits(schema)])

    def _part(self, schema: Any) -> str:
        """One of several forms, or what a list holds: nothing else tells what is said of it, unless fields follow."""
        described = is_schema(schema) and "description" in schema and not has_fields(schema)
        return f"{self.words(schema)} ({escape(schema['description'])})" if described else self.words(schema)

    def _kind(self, kind: str, schema: Json) -> str:
        if kind == "array" and is_schema(schema.get("items")):
            return f"array of {self._part(schema['items'])}"
        if kind == "object" and is_schema(schema.get("additionalProperties")) and not has_fields(schema):
            return f"object of {self._part(schema['additionalProperties'])}"
        if kind == "string" and "contentSchema" in schema:
            return f"string (JSON: {self._part(schema['contentSchema'])})"
        if kind == "string" and schema.get("maxLength") == 0:
            return "empty string"
        if "format" in schema and kind != "null":
            return f"{escape(kind)} ({escape(schema['format'])})"
        return escape(kind)

    def component(self, name: str, *, sent: bool) -> str:
        """A component, unfolded, with the place that links lead to."""
        self._taken.add(name)
        return f'<div class="shape" id="{anchor(name)}">{self.whole(self._components[name], sent=sent)}</div>'

    def whole(self, schema: Any, *, sent: bool) -> str:
        """A schema with all of its fields; of one that is sent, those that have to be are marked."""
        if not is_schema(schema):
            return "<p>Anything.</p>"
        if "$ref" in schema:
            name = name_of(schema["$ref"])
            return f"<p>{self.words(schema)}</p>" if name in self._taken else self.component(name, sent=sent)
        said = _paragraph(schema.get("description"))
        if not has_fields(schema):
            return f'{said}<p class="type">{self.words(schema)}</p>{self._folded_parts(schema, sent=sent)}'
        # Before the fields, one of which may be the same again: that one is the link.
        parts = [self._joined(part, sent=sent) for part in schema.get("allOf", [])]
        return said + self._fields(schema, sent=sent) + "".join(parts)

    def _joined(self, part: Any, *, sent: bool) -> str:
        told = f"<p>And the fields of {self.words(part)}:</p>" if "$ref" in part else ""
        if "$ref" in part and name_of(part["$ref"]) in self._taken:
            return told.replace(":</p>", ".</p>")
        return told + self.whole(part, sent=sent)

    def _fields(self, schema: Json, *, sent: bool) -> str:
        required = set(schema.get("required", ())) if sent else set()
        named = [(code_name(name), name in required, inner) for name, inner in schema.get("properties", {}).items()]
        named += [
            (f"<small>of the form</small> {code_name(form)}", False, inner)
            for form, inner in schema.get("patternProperties", {}).items()
        ]
        if is_schema(schema.get("additionalProperties")):
            named.append(("<small>any other</small>", False, schema["additionalProperties"]))
        # Fields that are alike are told of once.
        alike: dict[tuple[bool, str], tuple[list[str], Json]] = {}
        for name, is_required, inner in named:
            alike.setdefault((not is_required, json.dumps(inner, sort_keys=True)), ([], inner))[0].append(name)
        in_order = sorted(alike.items(), key=lambda item: item[0][0])
        lines = [
            row(names, self.value(inner, sent=sent, required=not optional))
            for (optional, _), (names, inner) in in_order
        ]
        no_more = "<p>No other fields.</p>" if schema.get("additionalProperties") is False and sent else ""
        return f"<dl>{''.join(lines)}</dl>{no_more}"

    def value(self, schema: Any, *, sent: bool, required: bool = False, note: str = "") -> str:
        """What is said of one field or parameter; what is inside of it is folded."""
        marks = ' <b class="required">required</b>' if required else ""
        schema = schema if is_schema(schema) else {}
        if "default" in schema and schema["default"] is not None:
            marks += f", default {code(schema['default'])}"
        if "examples" in schema:
            marks += f", for example {' '.join(map(code, schema['examples']))}"
        said = _paragraph(note or schema.get("description"))
        inside = {keyword: value for keyword, value in schema.items() if keyword != "description"}
        return f'<p class="type">{self.words(schema)}{marks}</p>{said}{self.folded(inside, sent=sent)}'

    def folded(self, schema: Any, *, sent: bool) -> str:
        if not is_schema(schema):
            return ""
        if "$ref" in schema:
            name = name_of(schema["$ref"])
            if name in self._taken:
                return ""
            return f"<details><summary>{escape(name)}</summary>{self.component(name, sent=sent)}</details>"
        if has_fields(schema):
            return f"<details><summary>Fields</summary>{self.whole(schema, sent=sent)}</details>"
        return self._folded_parts(schema, sent=sent)

    def _folded_parts(self, schema: Json, *, sent: bool) -> str:
        return "".join(self.folded(part, sent=sent) for part in _parts(schema))


def has_fields(schema: Json) -> bool:
    """Whether a schema names fields of an object."""
    return bool(schema.get("properties") or schema.get("patternProperties"))


def references(node: Any) -> set[str]:
    """The names of the components that a part of a document names itself."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            if isinstance(node.get("$ref"), str):
                found.add(name_of(node["$ref"]))
    return found


def anchor(name: str) -> str:
    """Where a component is on the page."""
    return f"shape-{escape(name)}"


def code_name(name: str) -> str:
    """A name as it is written."""
    return f"<code>{escape(name)}</code>"


def row(terms: list[str], told: str) -> str:
    """A line of a list of fields, of what they have in common; all of it is HTML."""
    many = ' class="many"' if len(terms) > _FIT else ""
    return f"<div{many}><dt>{' '.join(terms)}</dt><dd>{told}</dd></div>"


def _limits(schema: Json) -> Iterator[str]:
    left_out = _RANGE_OF_FORMAT.get(schema.get("format", ""), ())
    for keyword, said in _LIMITS.items():
        if keyword in schema and keyword not in left_out and not (keyword == "maxLength" and schema[keyword] == 0):
            value = schema[keyword]
            yield said.format(code_name(value) if isinstance(value, str) else escape(f"{value:,}"))
    if "pattern" in schema.get("not", {}):
        yield f"not of the form {code_name(schema['not']['pattern'])}"


def _parts(schema: Json) -> list[Any]:
    parts = [part for keyword in ("anyOf", "oneOf", "allOf") for part in schema.get(keyword, ())]
    return [*parts, *(schema[keyword] for keyword in _WITHIN if keyword in schema)]


def _paragraph(text: str | None) -> str:
    return f"<p>{escape(text)}</p>" if text else ""
