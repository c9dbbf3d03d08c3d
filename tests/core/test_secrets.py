"""What is masked."""

import pytest

from gateway.core.secrets import is_secret, masked


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "proxy-authorization", "Cookie", "set-cookie", "api_key", "apiKey", "X-API-Key"),
        *("x-goog-api-key", "openai_api_key", "anthropicApiKey", "aws_secret_access_key", "customer_credentials"),
        *("credential_override", "credentials"),
    ],
)
def test_secret_names(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["author", "key", "api", "content", "tokens", "monkey", ""])
def test_other_names(name: str) -> None:
    assert not is_secret(name)


def test_secrets_are_masked_at_any_depth_and_nothing_sent_is_changed() -> None:
    sent = {"a": [{"headers": {"Authorization": "Bearer x", "api_key": ""}}], "b": {"c": 1}}
    assert masked(sent) == {"a": [{"headers": {"Authorization": "***", "api_key": ""}}], "b": {"c": 1}}
    assert sent["a"] == [{"headers": {"Authorization": "Bearer x", "api_key": ""}}]


def test_what_holds_no_secret_is_given_back_as_it_is() -> None:
    for value in ({"a": [1, {"b": "c"}]}, [1], "text", None):
        assert masked(value) is value


def test_values_are_masked_wherever_they_stand() -> None:
    value = {"error": {"message": "key sk-12345678 is wrong"}, "list": ["sk-12345678"], "n": 1}
    assert masked(value, ["sk-12345678"]) == {"error": {"message": "key *** is wrong"}, "list": ["***"], "n": 1}
    assert masked(value, ["other"]) is value
