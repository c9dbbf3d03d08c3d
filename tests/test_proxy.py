"""One call through the proxy, on real sockets."""

from tests.conftest import Gateway
from tests.fakes.upstream import COMPLETION, ScriptedUpstream

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}


async def test_a_chat_completion_is_relayed_and_leaves_a_span(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.session.post("/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200
        assert await response.json() == COMPLETION
        log_id = response.headers["X-Respan-Log-Id"]
    span = await gateway.get(log_id)
    assert span["status"] == "success"
    assert (span["prompt_tokens"], span["completion_tokens"], span["total_request_tokens"]) == (9, 2, 11)
    assert span["cost"] == 9 * 0.15e-6 + 2 * 0.6e-6
    assert span["completion_message"]["content"] == "Hello there"


async def test_a_stream_is_relayed_without_the_usage_chunk(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.session.post("/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        text = await response.text()
        log_id = response.headers["X-Respan-Log-Id"]
    assert "usage" not in text
    assert text.endswith("data: [DONE]\n\n")
    span = await gateway.get(log_id)
    assert span["output"] == {"role": "assistant", "content": "Hello there", "refusal": None}
    assert (span["prompt_tokens"], span["completion_tokens"]) == (9, 2)
