"""An OpenAPI document as one page of HTML. It has no script, and asks for nothing but its style.

Operations that say the same of themselves are one entry: a path under its older names, a question by GET and by POST.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

from gateway.web.shapes import Json, Shapes, code_name, is_schema, name_of, references, row

# Stands for the base URL in what is built once: a character that is left to private use, and means nothing in HTML.
_BASE = "\ue000"
_WIDE = 80
_FORM = "application/x-www-form-urlencoded"


class _Operation(NamedTuple):
    method: str
    path: str
    said: Json


@dataclass
class _Entry:
    operations: list[_Operation]
    # The one body that its operations take, if any of them does.
    body: Json | None = None
    parameters: list[Json] = field(default_factory=list)

    @property
    def said(self) -> Json:
        return self.operations[0].said

    @property
    def anchor(self) -> str:
        return escape(self.said["operationId"])


class Page:
    """The page of a document, to be shown with any base URL."""

    def __init__(self, document: Json) -> None:
        self._pieces = _html(document).split(_BASE)

    def at(self, base_url: str) -> str:
        """The page with examples for a server at `base_url`."""
        return escape(base_url).join(self._pieces)


def _html(document: Json) -> str:
    components = document.get("components", {})
    groups = _groups(document)
    entries = [entry for _, found in groups for entry in found]
    common = _common(entries, components)
    shapes = Shapes(components.get("schemas", {}), common)
    sections = [_group(group, found, document, shapes) for group, found in groups]
    title = f"{document['info']['title']} {document['info']['version']}"
    return "".join(
        (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<title>{escape(title)}: API reference</title><link rel="stylesheet" href="/docs/style.css"></head><body>',
            '<a class="skip" href="#content">To the routes</a>',
            _contents(groups, has_common=bool(common)),
            f'<main id="content"><header><h1>{escape(title)}</h1>',
            "".join(f"<p>{escape(part)}</p>" for part in document["info"].get("description", "").split("\n\n")),
            _key(components.get("securitySchemes", {})),
            '<p>This page is made of <a href="/openapi.json">openapi.json</a>.</p></header>',
            *sections,
            _common_shapes(sorted(common), shapes),
            "</main></body></html>",
        )
    )


# What belongs together


def _groups(document: Json) -> list[tuple[Json, list[_Entry]]]:
    """The entries under each tag, in the order of the document's tags; then those of any other."""
    tags = {tag["name"]: tag for tag in document.get("tags", ())}
    found: dict[str, list[_Entry]] = {name: [] for name in tags}
    for entry in _entries(document):
        tag = next(iter(entry.said.get("tags", ())), "other")
        found.setdefault(tag, []).append(entry)
    return [(tags.get(name, {"name": name}), entries) for name, entries in found.items() if entries]


def _entries(document: Json) -> list[_Entry]:
    alike: dict[str, list[_Entry]] = {}
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            body = said.get("requestBody")
            key = _likeness(method, methods)
            fitting = (entry for entry in alike.get(key, ()) if None in (body, entry.body) or body == entry.body)
            entry = next(fitting, None)
            if entry is None:
                entry = _Entry([])
                alike.setdefault(key, []).append(entry)
            entry.operations.append(_Operation(method.upper(), path, said))
            entry.body = entry.body or body
            entry.parameters += [one for one in said.get("parameters", ()) if one not in entry.parameters]
    entries = [entry for found in alike.values() for entry in found]
    # A path with a name in it says more than those that it has been filled in for: its entry stands where it does.
    in_order = {path: number for number, path in enumerate(document["paths"])}
    for entry in entries:
        entry.operations.sort(key=lambda operation: "{" not in operation.path)
    return sorted(entries, key=lambda entry: in_order[entry.operations[0].path])


def _likeness(method: str, methods: Json) -> str:
    """What operations have in common that are shown as one; HEAD goes with the GET that it is the head of."""
    said = methods[method]
    if method == "head" and "get" in methods and _head(said) == _head(methods["get"]):
        said = methods["get"]
    passed_over = ("operationId", "requestBody", "parameters")
    told = {name: value for name, value in said.items() if name not in passed_over}
    parameters = [one for one in said.get("parameters", ()) if one.get("in") != "path"]
    return json.dumps([told, parameters], sort_keys=True)


def _head(said: Json) -> Json:
    responses = {
        status: {name: value for name, value in answer.items() if name != "content"}
        for status, answer in said["responses"].items()
    }
    return {"parameters": said.get("parameters"), "security": said.get("security"), "responses": responses}


def _common(entries: Iterable[_Entry], components: Json) -> set[str]:
    """The schemas that several entries answer with, and none takes: they are shown on their own."""
    leads_to = {name: set(references(schema)) for name, schema in components.get("schemas", {}).items()}
    taken: set[str] = set()
    answered: Counter[str] = Counter()
    for entry in entries:
        taken |= _reached([entry.body, entry.parameters], leads_to)
        answers = [_resolved(answer, components, "responses") for answer in entry.said["responses"].values()]
        answered.update(_reached(answers, leads_to))
    return {name for name, times in answered.items() if times > 1} - taken


def _reached(node: Any, leads_to: dict[str, set[str]]) -> set[str]:
    """The schemas that a part of the document names, and those that these name in turn."""
    found: set[str] = set()
    waiting = references(node) & leads_to.keys()
    while waiting:
        found |= waiting
        waiting = set().union(*(leads_to[name] for name in waiting)) - found
    return found


# The page, from its top


def _contents(groups: list[tuple[Json, list[_Entry]]], *, has_common: bool) -> str:
    listed = []
    for group, entries in groups:
        times = Counter(map(_summary, entries))
        links = (
            f'<li><a href="#{entry.anchor}">{_summary(entry)}'
            f"{f' {code_name(entry.operations[0].path)}' if times[_summary(entry)] > 1 else ''}</a></li>"
            for entry in entries
        )
        listed.append(f'<li><a href="#{_group_anchor(group)}">{_title(group)}</a><ul>{"".join(links)}</ul></li>')
    if has_common:
        listed.append('<li><a href="#shapes">Shapes</a></li>')
    return f'<nav aria-label="Contents"><ul>{"".join(listed)}</ul></nav>'


def _group_anchor(group: Json) -> str:
    return f"group-{escape(group['name'])}"


def _title(group: Json) -> str:
    return escape(str(group.get("x-displayName", group["name"])))


def _summary(entry: _Entry) -> str:
    return escape(entry.said["summary"])


def _key(schemes: Json) -> str:
    """How a key is sent; a cookie is none."""
    ways = []
    for scheme in schemes.values():
        if scheme.get("scheme") == "bearer":
            ways.append(code_name("Authorization: Bearer $KEY"))
        elif scheme["type"] == "apiKey" and scheme["in"] != "cookie":
            ways.append(f"{code_name(scheme['name'])} ({escape(scheme['in'])})")
    return f"<p>The key goes in {' or '.join(ways)}.</p>" if ways else ""


def _group(group: Json, entries: list[_Entry], document: Json, shapes: Shapes) -> str:
    shown = "".join(_entry(entry, document, shapes) for entry in entries)
    said = f"<p>{escape(group['description'])}</p>" if "description" in group else ""
    return f'<section><h2 id="{_group_anchor(group)}">{_title(group)}</h2>{said}{shown}</section>'


def _common_shapes(names: list[str], shapes: Shapes) -> str:
    if not names:
        return ""
    shown = "".join(f"<article><h3>{escape(name)}</h3>{shapes.component(name, sent=False)}</article>" for name in names)
    return f'<section><h2 id="shapes">Shapes</h2><p>What several routes answer.</p>{shown}</section>'


# One entry


def _entry(entry: _Entry, document: Json, shapes: Shapes) -> str:
    components = document.get("components", {})
    needs_key = bool(entry.said.get("security", document.get("security")))
    said = entry.said.get("description")
    return "".join(
        (
            f'<article><h3 id="{entry.anchor}">{_summary(entry)} '
            f'<span class="key">{"needs a key" if needs_key else "no key"}</span></h3>',
            _routes(entry),
            f"<p>{escape(said)}</p>" if said else "",
            _parameters(entry, components, shapes),
            _body(entry, shapes),
            f"<h4>Answers</h4>{_answers(entry.said['responses'], components, shapes)}",
            "<h4>Example</h4>",
            *(f'<pre tabindex="0"><code>{escape(curl)}</code></pre>' for curl in _examples(entry, needs_key=needs_key)),
            "</article>",
        )
    )


def _routes(entry: _Entry) -> str:
    by_path: dict[str, list[_Operation]] = {}
    for operation in entry.operations:
        by_path.setdefault(operation.path, []).append(operation)
    lines = (
        f"<li>{' '.join(_method(operation, entry) for operation in operations)} {code_name(path)}</li>"
        for path, operations in by_path.items()
    )
    return f'<ul class="routes">{"".join(lines)}</ul>'


def _method(operation: _Operation, entry: _Entry) -> str:
    # The heading is the place of the first one.
    place = "" if operation.said is entry.said else f' id="{escape(operation.said["operationId"])}"'
    return f"<b{place}>{escape(operation.method)}</b>"


def _parameters(entry: _Entry, components: Json, shapes: Shapes) -> str:
    alike: dict[str, list[Json]] = {}
    for parameter in entry.parameters:
        found = _resolved(parameter, components, "parameters")
        alike.setdefault(json.dumps({**found, "name": ""}, sort_keys=True), []).append(found)
    if not alike:
        return ""
    lines = []
    for same in alike.values():
        first = same[0]
        names = [code_name(one["name"]) for one in same]
        told = shapes.value(
            first.get("schema"),
            sent=True,
            required=first.get("required", False),
            note=first.get("description", ""),
        )
        lines.append(row([*names, f"<small>{escape(first['in'])}</small>"], told))
    return f"<h4>Parameters</h4><dl>{''.join(lines)}</dl>"


def _body(entry: _Entry, shapes: Shapes) -> str:
    if entry.body is None:
        return ""
    takers = [operation.method for operation in entry.operations if "requestBody" in operation.said]
    whose = f" of {', '.join(dict.fromkeys(takers))}" if len(takers) < len(entry.operations) else ""
    required = ' <b class="required">required</b>' if entry.body.get("required") else ""
    kinds = ", ".join(map(code_name, entry.body["content"]))
    shown = [
        shapes.whole(medium["schema"], sent=True)
        for medium in entry.body["content"].values()
        if is_schema(medium.get("schema"))
    ]
    return f'<h4>Body{escape(whose)}</h4><p class="type">{kinds}{required}</p>{"".join(shown)}'


def _answers(responses: Json, components: Json, shapes: Shapes) -> str:
    alike: dict[str, list[str]] = {}
    # Good news first.
    for status in sorted(responses):
        alike.setdefault(json.dumps(responses[status], sort_keys=True), []).append(status)
    lines = (
        row(
            [code_name(" ".join(statuses))],
            _answer(_resolved(responses[statuses[0]], components, "responses"), components, shapes),
        )
        for statuses in alike.values()
    )
    return f"<dl>{''.join(lines)}</dl>"


def _answer(answer: Json, components: Json, shapes: Shapes) -> str:
    told = [f"<p>{escape(answer['description'])}</p>"]
    for kind, medium in answer.get("content", {}).items():
        schema = medium.get("schema")
        is_what = f": {shapes.words(schema)}" if is_schema(schema) else ""
        told.append(f'<p class="type">{code_name(kind)}{is_what}</p>{shapes.folded(schema, sent=False)}')
    for name, header in answer.get("headers", {}).items():
        found = _resolved(header, components, "headers")
        described = f" {escape(found['description'])}" if "description" in found else ""
        told.append(f'<p class="type">{code_name(name)}: {shapes.words(found.get("schema"))}.{described}</p>')
    return "".join(told)


def _resolved(node: Json, components: Json, kind: str) -> Json:
    return components[kind][name_of(node["$ref"])] if "$ref" in node else node


# An example


def _examples(entry: _Entry, *, needs_key: bool) -> Iterator[str]:
    """A call without a body and one with it, as far as there are both."""
    for takes_body in (False, True):
        found = (operation for operation in entry.operations if ("requestBody" in operation.said) is takes_body)
        if (operation := next(found, None)) is not None:
            yield _curl(operation, needs_key=needs_key)


def _curl(operation: _Operation, *, needs_key: bool) -> str:
    """The command for a shell, with variables for what is to be filled in."""
    body = operation.said.get("requestBody")
    words = ["curl"]
    if operation.method != ("GET" if body is None else "POST"):
        words.append("-I" if operation.method == "HEAD" else f"-X {_quoted(operation.method)}")
    words.append(_address(operation.path) + _query(operation))
    lines = [" ".join(words)]
    if needs_key:
        lines.append('-H "Authorization: Bearer $KEY"')
    if body is not None:
        kind, medium = next(iter(body["content"].items()))
        data = _form(medium["example"]) if kind == _FORM and "example" in medium else _data(medium)
        lines += [f"-H {shlex.quote(f'Content-Type: {kind}')}", f"-d {data}"]
    return " \\\n  ".join(lines)


def _address(path: str) -> str:
    start, *names = path.split("{")
    filled = (f'"${_variable(name)}"{_quoted(rest)}' for name, _, rest in (part.partition("}") for part in names))
    return f"{_BASE}{_quoted(start)}{''.join(filled)}"


def _query(operation: _Operation) -> str:
    """What has to be in the query."""
    parameters = [one for one in operation.said.get("parameters", ()) if one.get("required") and one["in"] == "query"]
    pairs = urlencode([(one["name"], one["example"]) for one in parameters])
    return _quoted(f"?{pairs}") if pairs else ""


def _variable(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()


def _quoted(text: str) -> str:
    return shlex.quote(text) if text else ""


def _form(example: Json) -> str:
    """Fields with variables for their values, whatever the example has for them."""
    return _quoted("&").join(f'{_quoted(f"{quote_plus(name)}=")}"${_variable(name)}"' for name in example)


def _data(medium: Json) -> str:
    if "example" not in medium:
        return "@body.json"
    text = json.dumps(medium["example"], ensure_ascii=False)
    if len(text) > _WIDE:
        text = json.dumps(medium["example"], ensure_ascii=False, indent=2)
    return shlex.quote(text)
