"""The page at /docs: all that the document says, nothing that a document could smuggle in, nothing from elsewhere."""

import json
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import aiohttp
import pytest

from gateway.web.reference import Page
from tests.conftest import KEY, Gateway
from tests.fakes.client import raw_client
from tests.fakes.upstream import ScriptedUpstream
from tests.web.test_access import answer_anything

Document = dict[str, Any]
VOID = {"meta", "link", "img", "input"}


@dataclass
class Element:
    """A part of a page."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str, *within: str) -> list["Element"]:
        """The elements of a tag; or those within them of another, and so on."""
        found = [element for element in self.every() if element.tag == tag and element is not self]
        if not within:
            return found
        return list({id(inner): inner for element in found for inner in element.all(*within)}.values())

    def under(self, heading: str) -> list["Element"]:
        """The lines of the list that follows a heading in it."""
        elements = [child for child in self.children if isinstance(child, Element)]
        at = next(number for number, element in enumerate(elements) if element.text == heading)
        return [line for line in elements[at + 1].children if isinstance(line, Element)]

    def ids(self) -> set[str | None]:
        return {element.attributes["id"] for element in self.every() if "id" in element.attributes}

    def every(self) -> Iterator["Element"]:
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.every()

    def names(self) -> set[str]:
        """What its lists tell of."""
        return {code.text for code in self.all("dt", "code")}


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(html: str) -> Element:
    reader = Reader()
    reader.feed(html)
    reader.close()
    (whole,) = reader.open
    return whole


@pytest.fixture
async def anyone(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a key."""
    async with aiohttp.ClientSession(gateway.url) as session:
        yield session


@pytest.fixture
async def document(anyone: aiohttp.ClientSession) -> Document:
    async with anyone.get("/openapi.json") as response:
        found: Document = await response.json()
        return found


@pytest.fixture
async def page(anyone: aiohttp.ClientSession) -> Element:
    async with anyone.get("/docs") as response:
        return read(await response.text())


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            yield method.upper(), path, said


def entry_of(page: Element, said: Document) -> Element:
    """Where an operation is told of."""
    (entry,) = (entry for entry in page.all("article") if said["operationId"] in entry.ids())
    return entry


def fields_of(schema: Any) -> set[str]:
    """The fields that a schema names itself, at any depth, without those of what it refers to."""
    if isinstance(schema, list):
        return set().union(*map(fields_of, schema))
    if not isinstance(schema, dict):
        return set()
    found: set[str] = set()
    for keyword, inner in schema.items():
        if keyword in ("properties", "patternProperties"):
            found |= {*inner, *fields_of(list(inner.values()))}
        elif keyword in ("anyOf", "allOf", "items", "additionalProperties", "contentSchema"):
            found |= fields_of(inner)
    return found


# What is on it


async def test_every_route_and_method_is_on_the_page_and_no_other(page: Element, document: Document) -> None:
    shown = [
        (method.text, path.text)
        for routes in page.all("ul")
        if routes.attributes.get("class") == "routes"
        for line in routes.all("li")
        for path in line.all("code")
        for method in line.all("b")
    ]
    assert sorted(shown) == sorted((method, path) for method, path, _ in operations(document))


async def test_each_is_told_of_in_the_group_of_its_tag(page: Element, document: Document) -> None:
    sections = {section.all("h2")[0].text: section for section in page.all("section")}
    assert [*sections] == [*(tag["x-displayName"] for tag in document["tags"]), "Shapes"]
    titles = {tag["name"]: tag["x-displayName"] for tag in document["tags"]}
    for _, path, said in operations(document):
        assert said["operationId"] in sections[titles[said["tags"][0]]].ids(), path


async def test_each_says_what_it_does_and_whether_it_takes_a_key(page: Element, document: Document) -> None:
    for method, path, said in operations(document):
        heading = entry_of(page, said).all("h3")[0].text
        key = "no key" if said.get("security") == [] else "needs a key"
        summary = said["summary"].removesuffix(", by its head alone") if method == "HEAD" else said["summary"]
        assert heading == f"{summary} {key}", (method, path)


async def test_every_parameter_is_on_the_page_with_all_that_is_said_of_it(page: Element, document: Document) -> None:
    for method, path, said in operations(document):
        lines = entry_of(page, said).under("Parameters") if said["parameters"] else []
        for parameter in said["parameters"]:
            (line,) = (line for line in lines if parameter["name"] in line.names())
            assert line.all("dt", "small")[0].text == parameter["in"]
            told = line.text
            schema = parameter["schema"]
            for value in (*schema.get("enum", ()), *([schema["default"]] if "default" in schema else ())):
                assert json.dumps(value) in told, (method, path, parameter)
            for text in (parameter.get("description", ""), schema.get("description", ""), schema.get("type", "")):
                assert text in told, (method, path, parameter)
            assert ("required" in told) is parameter.get("required", False)


async def test_every_field_of_every_body_and_answer_is_on_the_page(page: Element, document: Document) -> None:
    shapes = {
        element.attributes["id"]: element for element in page.every() if element.attributes.get("class") == "shape"
    }
    for name, schema in document["components"]["schemas"].items():
        shape = shapes[f"shape-{name}"]
        shown = {name.text for name in shape.all("dt", "code")}
        assert fields_of(schema) <= shown, name
        for described in (inner for inner in _every_schema(schema) if "description" in inner and len(inner) > 1):
            assert described["description"] in shape.text, name
        assert required_in(schema) <= {"", *shape.names()}
    for method, path, said in operations(document):
        entry = entry_of(page, said)
        leads_to = {link.attributes["href"] for link in entry.all("a")} | {f"#{place}" for place in entry.ids()}
        contents = [said.get("requestBody", {}), *said["responses"].values()]
        for medium in (medium for content in contents for medium in content.get("content", {}).values()):
            schema = medium.get("schema", {})
            assert fields_of(schema) <= entry.names(), (method, path)
            for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)):
                assert f"#shape-{reference}" in leads_to, (method, path)
        for status in said["responses"]:
            assert any(status in code.split() for code in entry.names()), (method, path, status)


def _every_schema(schema: Any) -> Iterator[Document]:
    if isinstance(schema, dict):
        yield schema
        for keyword, inner in schema.items():
            for part in inner.values() if keyword in ("properties", "patternProperties") else (inner,):
                yield from _every_schema(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _every_schema(part)


def required_in(schema: Document) -> set[str]:
    return set(schema.get("required", ()))


async def test_what_has_to_be_sent_is_marked(page: Element) -> None:
    (create,) = (entry for entry in page.all("article") if "post_api_request_logs" in entry.ids())
    marked = [line.names() for line in create.all("dl", "div") if line.all("dd", "b")]
    assert marked == [{"model"}]


async def test_a_narrower_value_says_how(document: Document) -> None:
    """A keyword that the page is silent about would be a difference between the two."""
    known = {
        *("$ref", "type", "anyOf", "allOf", "not", "properties", "patternProperties", "additionalProperties", "items"),
        *("required", "enum", "const", "default", "description", "examples", "title", "format", "pattern"),
        *("minimum", "maximum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems"),
        *("contentMediaType", "contentSchema"),
    }
    for name, schema in document["components"]["schemas"].items():
        for inner in _every_schema(schema):
            assert set(inner) <= known, name
    limits = {"minimum": 17, "exclusiveMaximum": 18, "minItems": 19, "maxItems": 20, "minLength": 21, "maxLength": 22}
    told = read(Page(_document({"type": "integer", "pattern": "^x$", **limits})).at("http://h")).text
    for text in (
        "from 17",
        "below 18",
        "at least 19 of",
        "at most 20 of",
        "at least 21 long",
        "at most 22 long",
        "^x$",
    ):
        assert text in told


async def test_every_link_leads_somewhere_on_the_page(page: Element) -> None:
    links = [link.attributes["href"] or "" for link in page.all("a")]
    assert {link for link in links if not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in links if link.startswith("#")} <= page.ids()
    everywhere = [element.attributes["id"] for element in page.every() if "id" in element.attributes]
    assert len(everywhere) == len(set(everywhere))


async def test_every_example_is_answered(gateway: Gateway, page: Element, upstream: ScriptedUpstream) -> None:
    upstream.play = answer_anything
    span = {"model": "m", "unique_id": "a", "trace_unique_id": "a", "customer_identifier": "a"}
    examples = [pre.text for pre in page.all("pre")]
    assert len(examples) >= len(page.all("article")) - 10
    for example in examples:
        # An earlier one may have deleted it.
        await gateway.post({**span, "thread_identifier": "a"})
        async with gateway.session.patch("/api/traces/a", json={"is_public": True}):
            pass
        method, url, headers, body = parsed(example)
        async with (
            aiohttp.ClientSession() as anyone,
            anyone.request(method, url, headers=headers, data=body) as response,
        ):
            assert 200 <= response.status < 300, (example, response.status, await response.text())


def parsed(example: str) -> tuple[str, str, dict[str, str], str | None]:
    """The request that curl would send."""
    for name, value in (("$REST", "embeddings"), ("$ORGANIZATION_ID", "org-a"), ("$FILE", "login.css"), ("…", "a")):
        example = example.replace(name, value)
    words = shlex.split(re.sub(r"\$[A-Z_]+", "a", example.replace("$KEY", KEY)).replace("\\\n", ""))
    assert words.pop(0) == "curl"
    given: dict[str, list[str]] = {"-X": [], "-H": [], "-d": [], "": []}
    while words:
        flag = words.pop(0) if words[0] in given else ""
        given[flag].append(words.pop(0))
    (url,) = given[""]
    body = given["-d"][0] if given["-d"] else None
    method = given["-X"][0] if given["-X"] else "GET" if body is None else "POST"
    return method, url, dict(line.split(": ", 1) for line in given["-H"]), body


# What is not on it


MARKUP = "\"'><script>alert(1)</script><img src=//elsewhere.example onerror=alert(1)>&amp;${X}`id`"


def _document(schema: Document, text: str = "x") -> Document:
    said = {
        "operationId": f"id {text}",
        "tags": [text],
        "summary": f"summary {text}",
        "description": f"about {text}",
        "parameters": [{"name": f"name {text}", "in": f"in {text}", "description": text, "schema": schema}],
        "requestBody": {"content": {f"type/{text}": {"schema": schema, "example": {text: text}}}},
        "responses": {
            f"2 {text}": {
                "description": f"answer {text}",
                "content": {f"kind {text}": {"schema": {"$ref": f"#/components/schemas/{text.replace('/', '')}"}}},
                "headers": {f"header {text}": {"schema": schema, "description": text}},
            }
        },
    }
    return {
        "info": {"title": f"title {text}", "version": text, "description": f"info {text}"},
        "security": [{"k": []}],
        "tags": [{"name": text, "x-displayName": f"group {text}", "description": f"of {text}"}],
        "paths": {f"/{text}": {"post": said}},
        "components": {
            "securitySchemes": {"k": {"type": "apiKey", "in": text, "name": f"key {text}"}},
            "schemas": {text.replace("/", ""): {"description": text, "properties": {f"inner {text}": schema}}},
        },
    }


def test_whatever_a_document_says_is_text() -> None:
    schema = {
        **{"description": MARKUP, "default": MARKUP, "examples": [MARKUP], "title": MARKUP},
        "anyOf": [
            {"type": f"kind {MARKUP}", "format": MARKUP, "pattern": MARKUP, "minLength": MARKUP},
            {"enum": [MARKUP, {MARKUP: 1}]},
            {"const": MARKUP},
            {
                "properties": {f"field {MARKUP}": {}},
                "patternProperties": {MARKUP: {}},
                "additionalProperties": {"type": MARKUP},
            },
            {"type": "string", "contentSchema": {"type": MARKUP}, "not": {"pattern": MARKUP}},
        ],
    }
    plain = read(Page(_document(schema | {"anyOf": []})).at("http://h"))
    hostile = read(Page(_document(schema, MARKUP)).at(f"http://{MARKUP}"))
    allowed = {"class", "id", "href", "rel", "name", "content", "charset", "lang", "aria-label", "tabindex"}
    for element in hostile.every():
        assert element.tag not in ("script", "img", "style", "base", "iframe", "form", "object")
        assert set(element.attributes) <= allowed
        if element.tag not in ("a", "link"):
            assert "href" not in element.attributes
    assert {link.attributes["href"] for link in hostile.all("link")} == {"/docs/style.css"}
    assert len(hostile.all("article")) == len(plain.all("article")) == 1
    for told in ("title", "info", "group", "summary", "about", "name", "in", "type/", "answer", "header", "field"):
        assert f"{told} {MARKUP}".replace("/ ", "/") in hostile.text, told


def test_an_example_is_one_word_to_the_shell_whatever_is_in_it() -> None:
    (example,) = (pre.text for pre in read(Page(_document({}, "it's \"$(id)`id`")).at("http://h")).all("pre"))
    words = shlex.split(example.replace("\\\n", ""))
    assert json.loads(words[words.index("-d") + 1]) == {"it's \"$(id)`id`": "it's \"$(id)`id`"}


def test_what_is_alike_is_told_of_once_with_the_parameters_and_the_body_of_each() -> None:
    said = {"tags": [], "summary": "s", "responses": {"200": {"description": "d"}}}
    in_path = {"parameters": [{"name": "id", "in": "path", "schema": {}}]}
    body = {"requestBody": {"content": {"a/b": {"schema": {"properties": {"field": {}}}}}}}
    paths = {
        "/a/{id}": {"post": said | in_path | body | {"operationId": "1"}},
        "/b": {"get": said | {"operationId": "2"}, "put": said | {"operationId": "3", "summary": "t"}},
        "/c": {"patch": said | {"operationId": "4"} | {"requestBody": {"content": {"c/d": {}}}}},
    }
    entries = read(Page({"info": {"title": "", "version": ""}, "paths": paths}).at("http://h")).all("article")
    assert [entry.ids() for entry in entries] == [{"1", "2"}, {"3"}, {"4"}]
    assert [entry.names() for entry in entries] == [{"id", "field", "200"}, {"200"}, {"200"}]


def test_a_shape_within_itself_ends() -> None:
    tree = {"properties": {"children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}}}
    document = _document({"$ref": "#/components/schemas/Tree"}) | {
        "components": {"schemas": {"Tree": tree | {"allOf": [{"$ref": "#/components/schemas/Tree"}]}, "x": {}}}
    }
    page = read(Page(document).at("http://h"))
    assert len([element for element in page.every() if element.attributes.get("id") == "shape-Tree"]) == 1
    assert [code.text for code in page.all("dt", "code")].count("children") == 1


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/docs/style.css", "/docs/style.css/"])
async def test_it_needs_no_key_and_lets_nothing_in(anyone: aiohttp.ClientSession, path: str) -> None:
    async with anyone.get(path, allow_redirects=False) as response:
        text = await response.text()
        assert response.status == 200
        assert response.headers["Content-Type"] == f"text/{'css' if 'style' in path else 'html'}; charset=utf-8"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert (policy.pop("default-src"), policy.pop("style-src")) == ("'none'", "'self'")
    assert set(policy.values()) == {"'none'"}
    assert len(text) < 250_000
    if "style" in path:
        assert "url(" not in text
        assert "@import" not in text


async def test_nothing_is_loaded_but_its_style(page: Element) -> None:
    loaded = [
        (element.tag, name, value)
        for element in page.every()
        for name, value in element.attributes.items()
        if name in ("src", "srcset", "style", "action", "data", "poster") or (name == "href" and element.tag != "a")
    ]
    assert loaded == [("link", "href", "/docs/style.css")]
    assert not {element.tag for element in page.every()} & {"script", "style", "base", "iframe", "img", "svg", "form"}
    assert not [name for element in page.every() for name in element.attributes if name.startswith("on")]


# Where the examples call


@pytest.mark.parametrize("host", ["gateway.example", "my_gateway:8080", "10.0.0.1:80", "[::1]:8080", "A-b.example:443"])
async def test_examples_call_the_host_that_was_asked(anyone: aiohttp.ClientSession, host: str) -> None:
    async with anyone.get("/docs", headers={"Host": host}) as response:
        examples = [pre.text for pre in read(await response.text()).all("pre")]
    assert all(f"http://{host}/" in example for example in examples)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a;id",
        "$(id)",
        "`id`",
        "a'b",
        'a"b',
        "a<script>",
        "a/b",
        "a@b",
        "a:b",
        "a:80:80",
        "a#b",
        "a?b",
        "a\\b",
        "a&b",
        "${KEY}.elsewhere.example",
        "[::1",
        "[$(id)]",
        "x" * 300,
    ],
)
async def test_a_host_that_is_none_is_not_repeated(gateway: Gateway, host: str) -> None:
    async with raw_client(gateway.url, "") as client:
        address, client.host = client.host, host
        await client.send_head("GET", "/docs")
        page = read((await client.read_answer()).decode())
    assert client.status == 200
    examples = [pre.text for pre in page.all("pre")]
    assert examples
    assert all(re.search(rf'^curl (-X \w+ )?"?{re.escape(gateway.url)}/', example) for example in examples)
    assert address in gateway.url
