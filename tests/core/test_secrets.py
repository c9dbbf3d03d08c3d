"""What is masked, and how an error is told without its words."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.jsontext import dump
from gateway.core.secrets import hidden, in_headers, in_url, is_secret, masked, may_be_within, repeated_as, trace

SECRET_NAMES = [
    *("Authorization", "proxy-authorization", "Cookie", "set-cookie", "api_key", "apiKey", "X-API-Key", "api-key"),
    *("x-goog-api-key", "openai_api_key", "anthropicApiKey", "aws_secret_access_key", "customer_credentials"),
    *(
        "credential_override",
        "credentials",
        "customerCredentials",
        "X-Amz-Security-Token",
        "x-auth-token",
        "xAuthToken",
    ),
    *("access_token", "Ocp-Apim-Subscription-Key", "PRIVATE-TOKEN", "X-CSRF-Token", "client_secret", "password"),
    *("b'authorization'", 'b"x-api-key"', "AUTHORIZATION", "cookies", "Helicone-Auth"),
]
OTHER_NAMES = [
    *("author", "key", "api", "content", "tokens", "monkey", "", "token", "max_tokens", "eos_token", "prompt_tokens"),
    *("prior_authorization", "secretary", "password_policy", "authorized", "invalid_token", "b'content'"),
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_secret_names(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_other_names(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize("value", ["Bearer x", "b'Bearer x'", ["a=b", "c=d"], {"openai": {"key": "x"}}, 5])
def test_what_stands_under_a_secret_name_is_masked_however_the_headers_are_written(name: str, value: Any) -> None:
    assert masked({"headers": {name: value, "Host": "h"}}) == {"headers": {name: "***", "Host": "h"}}
    assert masked({"headers": [[name, value], ["Host", "h"]]}) == {"headers": [[name, "***"], ["Host", "h"]]}
    for naming, holding in (("name", "value"), ("key", "value"), ("Name", "Values")):
        written = [{naming: name, holding: value}, {naming: "Host", holding: "h"}]
        assert masked(written) == [{naming: name, holding: "***"}, {naming: "Host", holding: "h"}]


@pytest.mark.parametrize(
    "headers",
    [
        "Host: h\r\nAuthorization: Bearer x\r\n",
        '{"x-api-key": "x"}',
        "Headers([('host', 'h'), ('cookie', 'x')])",
        ["Host: h", "Authorization: Bearer x"],
        ["Host", "h", "X-Api-Key", "x"],
    ],
)
@pytest.mark.parametrize("name", ["headers", "rawHeaders", "request_headers"])
def test_headers_that_are_one_text_are_masked_whole(name: str, headers: object) -> None:
    assert masked({name: headers, "text": headers}) == {name: "***", "text": headers}


def test_headers_as_text_that_hold_no_secret_stay() -> None:
    value = {"headers": "Host: h\r\nAccept: */*", "raw_headers": ["Host", "h", 5]}
    assert masked(value) is value


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:p@ss@host:1/v1", "https://***@host:1/v1"),
        ("postgres://token@host", "postgres://***@host"),
        ("https://h/sse?api_key=x&a=b&token=y#z", "https://h/sse?api_key=***&a=b&token=***#z"),
        ("https://h/?X-Amz-Security-Token=x&api%5Fkey=y", "https://h/?X-Amz-Security-Token=***&api%5Fkey=***"),
        ("https://h/@me?q=a@b&key=", "https://h/@me?q=a@b&key="),
        ("See https://user:pass@host", "See https://user:pass@host"),
        ("data:image/png;base64,://@", "data:image/png;base64,://@"),
    ],
)
def test_a_text_that_is_a_url_keeps_no_password_and_no_secret_parameter(url: str, shown: str) -> None:
    assert masked({"tools": [{"server_url": url}]}) == {"tools": [{"server_url": shown}]}


def test_secrets_are_masked_at_any_depth_and_nothing_sent_is_changed() -> None:
    sent = {"a": [{"headers": {"Authorization": "Bearer x", "api_key": ""}}], "b": {"c": 1}}
    assert masked(sent) == {"a": [{"headers": {"Authorization": "***", "api_key": ""}}], "b": {"c": 1}}
    assert sent["a"] == [{"headers": {"Authorization": "Bearer x", "api_key": ""}}]


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, {"b": "c"}], "required": ["api_key", "city"], "url": "https://h/v1?a=b"},
        {"name": "authorization", "arguments": "{}"},
        [["api_key"], [1, 2]],
        [0.1, 0.2],
        "text",
        None,
    ],
)
def test_what_holds_no_secret_is_given_back_as_it_is(value: Any) -> None:
    assert masked(value) is value


def test_texts_are_masked_wherever_they_stand() -> None:
    value = {"error": {"message": "key sk-12345678 is wrong"}, "list": ["sk-12345678"], "n": 1}
    assert masked(value, ["sk-12345678"]) == {"error": {"message": "key *** is wrong"}, "list": ["***"], "n": 1}
    assert masked(value, ["other"]) is value


def test_what_was_masked_by_its_name_is_told() -> None:
    found: set[str] = set()
    request = {
        "tools": [{"authorization": "token-1", "server_url": "https://u:pass-2@h?key=a%2Fb"}],
        "headers": [["cookie", ["a=1", "b=2"]], {"name": "api-key", "value": "key-3"}],
        "parameters": {"api_key": {"type": "string"}},
        "messages": [{"content": "text"}],
    }
    masked(request, (), found)
    assert found == {"token-1", "pass-2", "dTpwYXNzLTI=", "a%2Fb", "a/b", "a=1", "b=2", "key-3"}


def test_what_a_request_carries_is_found_in_its_headers_and_in_its_url() -> None:
    headers = [("X-Goog-Api-Key", "key-1"), ("Cookie", "a=1"), ("Cookie", "b=2"), ("X-My-Auth", "c"), ("Accept", "*/*")]
    assert in_headers(headers) == {"key-1", "a=1", "b=2", "c"}
    assert in_url("/models?key=key-1&alt=sse&sig=a%2Bb") == {"key-1", "a%2Bb", "a+b"}
    assert in_url("https://user:p%40ss@host/v1") == {"p%40ss", "p@ss", "dXNlcjpwQHNz"}
    assert in_url("https://token@host") == {"token", "dG9rZW46"}
    assert in_url("https://host/v1?a=b") == set()


def test_a_secret_may_be_repeated_with_and_without_what_stands_before_it() -> None:
    assert repeated_as(["Bearer sk-12345678", " sk-123456789 "]) == [
        "Bearer%20sk-12345678",
        "Bearer sk-12345678",
        "sk-123456789",
        "sk-12345678",
    ]
    assert repeated_as(["session=s-12345678; b=2"])[-1] == "s-12345678"
    assert set(repeated_as(['a/b"12345'])) == {'a/b"12345', json.dumps('a/b"12345')[1:-1], "a%2Fb%2212345"}


def test_what_is_too_short_to_be_told_from_a_word_is_not_looked_for() -> None:
    assert repeated_as(["key", "a=1", ""]) == []


def test_an_error_is_told_with_its_causes_and_without_its_words() -> None:
    secret = " ".join(["a", "secret"])

    def fail() -> None:
        raise KeyError(secret)

    try:
        try:
            fail()
        except KeyError as error:
            raise ValueError(secret) from error
    except ValueError as error:
        told = trace(error)
    assert secret not in told
    assert [line for line in told.splitlines() if not line.startswith(" ")] == ["ValueError", "KeyError"]
    assert "in fail" in told


def test_what_is_no_unicode_is_masked_as_well() -> None:
    odd = "s3cret-\udc80-\ud800-s3cret"
    assert masked({"error": f"no: {odd}"}, repeated_as({odd})) == {"error": "no: ***"}
    assert in_url(f"https://user:{odd}@host/?key={odd}") >= {odd}


@pytest.mark.parametrize(
    "sign", ["?", "?a", "&", "a", "a=", "a=a;", "=", ";", "x@", "://", "/", " a", "a=a ", "Bearer ", "é"]
)
def test_no_text_takes_long(sign: str) -> None:
    # Gone through from each of its places anew it would take hours.
    text = sign * (1_000_000 // len(sign))
    for where in (f"https://example.com/{text}", f"https://example.com/?{text}", f"https://{text}", text):
        masked({"a": where, where: "a"}, ("s3cret-key",), set())
        in_url(where)
    repeated_as({text, f"Bearer {text}", f"{text} {text};"})


def test_secrets_among_odd_signs_are_found() -> None:
    assert in_url("/v1/x?a?token=s3cret-1&&key==s3cret-2?") >= {"s3cret-1", "=s3cret-2?"}
    assert masked("https://h/??key=s3cret-1") == "https://h/??key=***"
    cookies = "first=s3cret-1; =second=s3cret-2;third=s3cret=3 ; fourth=s3cret-4"
    assert set(repeated_as({cookies})) == {cookies, "s3cret-1", "s3cret-2", "s3cret-4", quote(cookies, safe="")}


_names = st.sampled_from([*SECRET_NAMES, *OTHER_NAMES, "name", "value", "Values", "rawHeaders", "role", "é"])
_texts = st.text(max_size=5) | _names | st.sampled_from(["https://u:p@h/?key=v", "http://h/?a=b", "Cookie: a=b"])


@settings(max_examples=500)
@given(
    st.recursive(
        st.none() | st.integers() | _texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names | st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_is_masked_is_seen_in_its_json(value: Any) -> None:
    if masked(value) is not value:
        assert may_be_within(dump(value))


def test_an_answer_that_counts_its_tokens_is_not_walked() -> None:
    assert not may_be_within(dump({"usage": {"prompt_tokens": 1}, "max_tokens": 5, "content": "Hello"}))


def test_long_texts_are_not_searched_for_what_a_walk_finds_at_once() -> None:
    value = {"content": "Hello. " * 1000, "api_key": "sk-1"}
    assert may_be_within(dump(value))
    assert masked(value) == {**value, "api_key": "***"}


def test_what_an_answer_repeats_of_the_request_is_found_in_its_json() -> None:
    mine = hidden(('sk-"upstream"-key',), frozenset({"Bearer sk-my-own-key"}))
    assert mine.within(dump(["Hello"])) == []
    assert mine.within(dump(["said sk-my-own-key"])) == ["sk-my-own-key"]
    assert mine.within(dump(["said Bearer sk-my-own-key"])) == ["Bearer sk-my-own-key", "sk-my-own-key"]
    assert mine.within(dump(['said sk-"upstream"-key'])) == ['sk-"upstream"-key']


def test_however_many_texts_a_request_carries_each_is_compared_with_few() -> None:
    many = frozenset(f"cookie-{number:08}" for number in range(5000))
    found = hidden((), many | {"cookie-00000007-and-more"})
    # One that holds another is among them: that was not looked for.
    assert len(found.shortest) == len(found.texts) == 5001
    assert found.within(dump(["said cookie-00000007"])) == ["cookie-00000007"]
    few = hidden((), frozenset({"Bearer sk-my-own-key"}))
    assert len(few.shortest) < len(few.texts)
