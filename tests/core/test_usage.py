"""Token counts in each provider's dialect."""

from typing import Any

import pytest

from gateway.core.usage import Usage, count, mistakes, read


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param({}, Usage(), id="nothing"),
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 8},
            },
            Usage(100, 20, 120, 60, None, 8),
            id="OpenAI chat",
        ),
        pytest.param(
            {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 60},
                "output_tokens": 20,
                "output_tokens_details": {"reasoning_tokens": 8},
                "total_tokens": 120,
            },
            Usage(100, 20, 120, 60, None, 8),
            id="OpenAI Responses",
        ),
        pytest.param(
            {
                "input_tokens": 40,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 10,
                "cache_creation": {"ephemeral_5m_input_tokens": 10},
                "output_tokens": 20,
            },
            Usage(40, 20, None, 60, 10, None, cache_is_extra=True),
            id="Anthropic",
        ),
        pytest.param({"input_tokens": 40, "output_tokens": 20}, Usage(40, 20), id="Anthropic without a cache"),
        pytest.param(
            {"prompt_tokens": 100, "completion_tokens": 20, "cache_read_input_tokens": 60},
            Usage(100, 20, None, 60),
            id="prompt_tokens include cached ones, whoever names those",
        ),
        pytest.param(
            {"prompt_tokens": 100, "cache_creation_prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}},
            Usage(100, None, None, 3, 7),
            id="other names",
        ),
        pytest.param(
            {"prompt_tokens": 9, "prompt_tokens_details": {"cache_creation_tokens": 4}, "reasoning_tokens": 2},
            Usage(9, None, None, None, 4, 2),
            id="cache creation among the details",
        ),
        pytest.param({"prompt_tokens": 10, "prompt_cache_hit_tokens": 4}, Usage(10, None, None, 4), id="DeepSeek"),
        pytest.param({"prompt_tokens": "10", "completion_tokens": 2.0}, Usage(10, 2), id="numbers as text"),
        pytest.param(
            {"prompt_tokens": None, "completion_tokens": "x", "prompt_tokens_details": 5, "total_tokens": [1]},
            Usage(),
            id="what is no count is passed over",
        ),
    ],
)
def test_dialects(usage: dict[str, Any], expected: Usage) -> None:
    assert read(usage) == expected


@pytest.mark.parametrize("value", [None, True, "", "x", "9" * 5000, 1.5, float("nan"), float("inf"), 2**63, [], {}])
def test_no_counts(value: object) -> None:
    assert count(value) is None


def test_mistakes_name_each_known_count_that_is_none() -> None:
    assert mistakes({"prompt_tokens": "x", "output_tokens": True, "total_tokens": None, "other": "x"}) == [
        "prompt_tokens",
        "output_tokens",
    ]
