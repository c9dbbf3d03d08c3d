"""Multipart forms: fields are read and changed, and every other byte stays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import multipart

LIMIT = b"XyZ"
NAMES = ["model", "file", "respan_params", "stream", "é"]


def part(name: str, content: bytes, extra: str = "") -> bytes:
    return f'--XyZ\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XyZ--\r\n"


contents = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [b"", b"\r\n", b"--XyZ", b"\r\n--XyZabc\r\n", b"\r\n--Xy", b"\r\n\r\n", b'; name="model"', b"--\r\n"]
    ),
).filter(lambda content: b"\r\n--XyZ" not in b"\r\n" + content or b"\r\n--XyZabc" in content)
extras = st.sampled_from(["", '; filename="a.mp3"', '; filename="; name=\\"model\\""\r\nContent-Type: audio/mpeg'])
forms = st.lists(st.tuples(st.sampled_from(NAMES), contents, extras), max_size=6)
outsides = st.sampled_from([b"", b"preamble\r\n"]), st.sampled_from([b"", b"epilogue", b"\r\n--XyZ\r\n\r\n\r\n--XyZ--"])


@settings(max_examples=300)
@given(forms, *outsides, st.sets(st.sampled_from(NAMES)))
def test_any_form(fields: list[tuple[str, bytes, str]], before: bytes, behind: bytes, removed: set[str]) -> None:
    body = before + form(*(part(*field) for field in fields)) + behind
    read = [(found.name, body[found.content : found.content_end]) for found in multipart.parts(body, LIMIT)]
    assert read == [(name, content) for name, content, _ in fields]
    kept = form(*(part(*field) for field in fields if field[0] not in removed))
    assert multipart.without(body, LIMIT, removed) == before + kept + behind
    changed = form(*(part(name, b"new" if name == "model" else content, extra) for name, content, extra in fields))
    assert multipart.with_value(body, LIMIT, "model", "new") == before + changed + behind


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=8) | st.sampled_from([b"--XyZ", b"--", b"\r\n", b'name="model"']), max_size=12))
def test_garbage_is_no_form_but_breaks_nothing(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    assert multipart.without(body, LIMIT, {"x"}) == body
    multipart.fields(body, LIMIT, {"model"})
    multipart.with_value(body, LIMIT, "model", "m")


def test_fields_are_texts_and_the_last_of_a_name_counts() -> None:
    body = form(part("model", b"a"), part("file", b"\xff"), part("model", "é".encode()), part("x", b"y"))
    assert multipart.fields(body, LIMIT, {"model", "file", "stream"}) == {"model": "é", "file": "\ufffd"}


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="model"',
        b"content-disposition:form-data;name=model",
        b'CONTENT-DISPOSITION: form-data; filename="x"; NAME = "model"',
        b'Content-Type: text/plain; name="other"\r\nContent-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; filename="; name=\\"x\\""; name="model"\r\nContent-Type: text/plain',
    ],
)
def test_ways_to_write_a_name(head: bytes) -> None:
    body = b"--XyZ \t\r\n" + head + b"\r\n\r\nm\r\n--XyZ--"
    assert multipart.fields(body, LIMIT, {"model"}) == {"model": "m"}
    assert multipart.without(body, LIMIT, {"model"}) == b"--XyZ--"


@pytest.mark.parametrize(
    "head",
    [b"", b"Content-Type: text/plain", b"Content-Disposition: form-data", b'Content-Disposition: x; filename="model"'],
)
def test_a_part_without_a_name_is_left_alone(head: bytes) -> None:
    body = form(b"--XyZ\r\n" + head + b"\r\n\r\nm\r\n", part("model", b"x"))
    assert multipart.without(body, LIMIT, {"model"}) == form(b"--XyZ\r\n" + head + b"\r\n\r\nm\r\n")


def test_a_form_that_breaks_off_gives_its_whole_parts() -> None:
    assert multipart.fields(part("a", b"1") + part("b", b"2")[:-5], LIMIT, {"a", "b"}) == {"a": "1"}


def test_many_parts_of_a_name() -> None:
    assert multipart.without(form(*[part("model", b"x")] * 20_000), LIMIT, {"model"}) == b"--XyZ--\r\n"


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("multipart/form-data; boundary=XyZ", b"XyZ"),
        ('Multipart/Form-Data; charset=utf-8; Boundary="a b:c"', b"a b:c"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/mixed; boundary=XyZ", None),
        ("application/json", None),
        ("", None),
        ("\udcff; boundary=x", None),
        ("\udc80\x80", None),
        ("multipart/form-data; boundary=\udc80\x80é", b"\x80\xc2\x80\xc3\xa9"),
        ("multipart/form-data; boundary*=utf-8''x", None),
    ],
)
def test_boundary(content_type: str, expected: bytes | None) -> None:
    assert multipart.boundary(content_type) == expected


def test_an_object_that_is_written_as_fields_comes_back_as_one() -> None:
    form = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name, value)
        for name, value in (
            (b"respan_params[customer_identifier]", b"u"),
            (b"respan_params[metadata][a]", b"b"),
            (b"respan_params_not[x]", b"kept"),
            (b"odd[x", b"kept"),
        )
    )
    form += b"--B--\r\n"
    assert multipart.fields(form, b"B", {"respan_params"}) == {
        "respan_params": {"customer_identifier": "u", "metadata": {"a": "b"}}
    }
    left = multipart.without(form, b"B", {"respan_params"})
    assert [part.name for part in multipart.parts(left, b"B")] == ["respan_params_not[x]", "odd[x"]
