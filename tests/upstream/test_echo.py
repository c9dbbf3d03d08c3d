"""The built-in upstream, as the OpenAI SDK sees it through the gateway."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from gateway.clock import Clock
from gateway.upstream.echo import EchoUpstream
from gateway.upstream.wire import Request
from tests.conftest import KEY, Gateway, StartGateway

ECHO = '[[upstreams]]\nname = "parrot"\nkind = "echo"\n'
SAY: Any = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Say  this back\nplease"}]
TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    return await start_gateway('models = ["gpt-*"]\n' + ECHO)


@pytest.fixture
async def sdk(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


async def test_it_says_the_last_message_back(sdk: openai.AsyncOpenAI, gateway: Gateway) -> None:
    answer = await sdk.chat.completions.create(model="echo", messages=SAY)
    assert answer.choices[0].message.content == "Say  this back\nplease"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 4, 10)
    span = await gateway.only_span()
    assert (span["upstream"], span["status"], span["completion_tokens"]) == ("parrot", "success", 4)


@pytest.mark.parametrize("asks", [False, True])
async def test_it_streams_word_by_word(sdk: openai.AsyncOpenAI, gateway: Gateway, asks: bool) -> None:
    more: Any = {"stream_options": {"include_usage": True}} if asks else {}
    stream = await sdk.chat.completions.create(model="parrot/echo", messages=SAY, stream=True, **more)
    chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert words == ["Say", "  this", " back", "\nplease"]
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == ([4] if asks else [])
    span = await gateway.only_span()
    assert (span["output"]["content"], span["completion_tokens"]) == ("Say  this back\nplease", 4)
    assert span["time_to_first_token"] > 0
    assert span["tokens_per_second"] > 0


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
@pytest.mark.parametrize("streamed", [False, True])
async def test_it_calls_a_tool_that_is_demanded(
    sdk: openai.AsyncOpenAI, gateway: Gateway, choice: Any, streamed: bool
) -> None:
    question: Any = [{"role": "user", "content": "the weather"}]
    create: Any = sdk.chat.completions.create
    answer = await create(model="echo", messages=question, tools=[TOOL], tool_choice=choice, stream=streamed)
    if streamed:
        reasons = [chunk.choices[0].finish_reason async for chunk in answer]
        assert reasons[-1] == "tool_calls"
    else:
        call = answer.choices[0].message.tool_calls[0]
        assert (call.function.name, json.loads(call.function.arguments)) == ("look_up", {"input": "the weather"})
    (call,) = (await gateway.only_span())["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "look_up")
    assert json.loads(call["function"]["arguments"]) == {"input": "the weather"}


async def test_a_tool_that_is_offered_is_left_alone(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="echo", messages=SAY, tools=[TOOL], tool_choice="auto")
    assert answer.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "text", "text": "in parts"}], "in parts"),
        ("", ""),
        ("   ", "   "),
        ("é ü 🦜", "é ü 🦜"),
        (None, ""),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_any_content_is_said_back(
    sdk: openai.AsyncOpenAI, gateway: Gateway, content: Any, said: str, streamed: bool
) -> None:
    create: Any = sdk.chat.completions.create
    answer = await create(model="echo", messages=[{"role": "user", "content": content}], stream=streamed)
    if streamed:
        parts = [chunk.choices[0].delta.content or "" async for chunk in answer]
        assert "".join(parts) == said
    else:
        assert answer.choices[0].message.content == said


@pytest.mark.parametrize("messages", [[], "text", None, [7]])
async def test_messages_that_are_none_are_refused(sdk: openai.AsyncOpenAI, gateway: Gateway, messages: Any) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await sdk.chat.completions.create(model="echo", messages=messages)
    assert raised.value.code == "invalid_value"
    span = await gateway.only_span()
    assert (span["status"], span["status_code"], span["error_code"]) == ("failed", 400, "invalid_value")


async def test_it_has_nothing_but_chats(sdk: openai.AsyncOpenAI, gateway: Gateway) -> None:
    with pytest.raises(openai.NotFoundError):
        await sdk.embeddings.create(model="echo", input="x")
    assert (await gateway.only_span())["status_code"] == 404


async def test_an_unknown_model_is_an_error_that_the_sdk_knows(sdk: openai.AsyncOpenAI, gateway: Gateway) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await sdk.chat.completions.create(model="nobody", messages=SAY)
    assert raised.value.code == "model_not_found"
    assert "parrot: echo" in str(raised.value)


async def test_a_compressed_request_is_understood(gateway: Gateway) -> None:
    body = gzip.compress(json.dumps({"model": "echo", "messages": SAY}).encode())
    reply = await gateway.call("/v1/chat/completions", data=body, headers={"Content-Encoding": "gzip"})
    assert reply.json()["choices"][0]["message"]["content"] == "Say  this back\nplease"


async def test_it_is_listed(sdk: openai.AsyncOpenAI) -> None:
    assert "echo" in [model.id async for model in sdk.models.list()]


@pytest.mark.parametrize("streamed", [False, True])
async def test_it_tells_when_all_of_an_answer_was_read(streamed: bool) -> None:
    body = json.dumps({"model": "echo", "messages": SAY, "stream": streamed}).encode()
    request = Request("POST", "/chat/completions", [], body, streamed=streamed, on_sent=lambda: None)
    answer = await EchoUpstream("parrot", None, Clock()).send(request)
    pieces = 0
    while not answer.ended:
        assert await answer.read()
        pieces += 1
    assert pieces == (1 if not streamed else 7)
    assert await answer.read() == b""
