"""Every span goes to a collector, too, whatever becomes of that and of the gateway."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from gateway import shipper
from gateway.core import otlp_export
from tests import processes
from tests.conftest import Gateway, StartGateway


class FakeCollector:
    """Keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[Any] = []
        self.refused = 0
        # A span of this name makes a request one that is not taken.
        self.hated = "hated"
        self.answer = b""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.status != 200:
            self.refused += 1
            return web.Response(status=self.status)
        self.headers.append(request.headers)
        # aiohttp has decompressed it.
        asked = ExportTraceServiceRequest.FromString(body)
        if self.hated.encode() in body:
            return web.Response(status=413)
        self.requests.append(asked)
        return web.Response(body=self.answer)

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def ids(self) -> list[str]:
        return [attributes(span)["respan.entity.log_id"] for span in self.spans]

    async def has(self, number: int) -> None:
        async with asyncio.timeout(60):
            while len(self.spans) < number:
                await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(shipper, "_PAUSE_FIRST_S", 0.01)


@pytest.fixture
async def collector() -> AsyncIterator[tuple[FakeCollector, str]]:
    async with collecting() as found:
        yield found


@asynccontextmanager
async def collecting(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[FakeCollector, str]]:
    made = FakeCollector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    yield made, f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    await runner.cleanup()


def configured(endpoint: str) -> str:
    return f'[otlp]\nendpoint = "{endpoint}"\nheaders = {{ "X-Team" = "x" }}\n'


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: value(one.value) for one in span.attributes}


def value(of: AnyValue) -> Any:
    return getattr(of, of.WhichOneof("value") or "string_value")


async def test_a_call_and_what_is_posted(start_gateway: StartGateway, collector: tuple[FakeCollector, str]) -> None:
    taken, endpoint = collector
    gateway = await start_gateway(configured(endpoint))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = {
        **{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5},
        "respan_params": {"trace_unique_id": trace, "thread_identifier": "th", "metadata": {"plan": "pro"}},
    }
    span = await gateway.span_of("/v1/chat/completions", json=body)
    step = {"model": "m", "log_type": "tool", "span_name": "search", "input": {"q": 1}, "status": "error"}
    await gateway.post({**step, "error_message": "boom", "trace_unique_id": "t", "span_parent_id": "p"})
    await taken.has(2)
    call, tool = taken.spans
    told = attributes(call)
    assert (call.trace_id.hex(), call.name, call.kind) == (trace, "chat gpt-4o-mini", 3)
    assert (call.end_time_unix_nano - call.start_time_unix_nano) / 1e9 == pytest.approx(span["latency"], abs=1e-5)
    assert told["gen_ai.usage.input_tokens"] == span["prompt_tokens"] and told["gen_ai.request.temperature"] == 0.5
    assert (told["gen_ai.usage.cost"], told["gen_ai.conversation.id"]) == (span["cost"], "th")
    assert json.loads(told["gen_ai.input.messages"]) == [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
    assert json.loads(told["gen_ai.output.messages"])[0]["role"] == "assistant"
    assert (told["respan.metadata.plan"], told["gen_ai.provider.name"]) == ("pro", "main")
    assert (tool.name, tool.kind, tool.status.code, tool.status.message) == ("search", 1, 2, "boom")
    assert len(tool.trace_id) == 16 and len(tool.span_id) == len(tool.parent_span_id) == 8
    assert attributes(tool)["traceloop.entity.input"] == '{"q":1}'
    (of_resource, *_) = taken.requests[0].resource_spans
    assert {one.key: one.value.string_value for one in of_resource.resource.attributes} == {
        **{"service.name": "span-gateway", "deployment.environment.name": "prod"},
        "respan.organization_id": "org-a",
    }
    assert taken.headers[0]["X-Team"] == "x"


async def test_what_a_collector_does_not_take_waits_for_it(
    start_gateway: StartGateway, collector: tuple[FakeCollector, str], caplog: pytest.LogCaptureFixture
) -> None:
    taken, endpoint = collector
    gateway = await start_gateway(configured(endpoint))
    await gateway.post({"model": "m", "unique_id": "a"})
    await taken.has(1)
    taken.status = 503
    for unique_id in "bcd":
        await gateway.post({"model": "m", "unique_id": unique_id})
    async with asyncio.timeout(60):
        while taken.refused < 3:
            await asyncio.sleep(0.01)
    taken.status = 200
    await taken.has(4)
    assert sorted(taken.ids()) == ["a", "b", "c", "d"]
    assert [record.message.split(",")[0] for record in caplog.records if "[otlp]" in record.message] == [
        "Spans wait",
        "The collector of [otlp] takes spans again.",
    ]
    # What it never takes holds up nothing.
    taken.status = 400
    await gateway.post({"model": "m", "unique_id": "e"})
    async with asyncio.timeout(60):
        while "does not take the span e, it is not exported: it answers 400" not in caplog.text:
            await asyncio.sleep(0.01)
    taken.status = 200
    await gateway.post({"model": "m", "unique_id": "f"})
    await taken.has(5)
    assert taken.ids()[-1] == "f"


@pytest.mark.parametrize("status", [302, 401, 404, 500])
async def test_what_is_not_about_the_spans_loses_none(
    start_gateway: StartGateway, collector: tuple[FakeCollector, str], status: int
) -> None:
    taken, endpoint = collector
    taken.status = status
    gateway = await start_gateway(configured(endpoint))
    await gateway.post({"model": "m", "unique_id": "a"})
    async with asyncio.timeout(60):
        while taken.refused < 2:
            await asyncio.sleep(0.01)
    taken.status = 200
    await taken.has(1)
    assert taken.ids() == ["a"]


async def test_a_span_that_is_not_taken_takes_no_other_with_it(
    start_gateway: StartGateway, collector: tuple[FakeCollector, str], caplog: pytest.LogCaptureFixture
) -> None:
    taken, endpoint = collector
    taken.status = 503
    gateway = await start_gateway(configured(endpoint))
    names = [taken.hated if number in (3, 11) else "x" for number in range(20)]
    for number, name in enumerate(names):
        await gateway.post({"model": "m", "unique_id": f"{number:02}", "span_name": name})
    taken.status = 200
    await taken.has(18)
    assert taken.ids() == [f"{number:02}" for number in range(20) if number not in (3, 11)]
    for unique_id in ("03", "11"):
        assert f"does not take the span {unique_id}, it is not exported: it answers 413" in caplog.text


async def test_what_it_says_it_has_not_taken_is_logged(
    start_gateway: StartGateway, collector: tuple[FakeCollector, str], caplog: pytest.LogCaptureFixture
) -> None:
    taken, endpoint = collector
    success = {"rejected_spans": 1, "error_message": "too old"}
    taken.answer = ExportTraceServiceResponse(partial_success=success).SerializeToString()
    gateway = await start_gateway(configured(endpoint))
    await gateway.post({"model": "m"})
    async with asyncio.timeout(60):
        while "has not taken 1 spans, they are not exported: 'too old'" not in caplog.text:
            await asyncio.sleep(0.01)
    # No answer of its kind, nor one with an end.
    taken.answer = b"\xff" * 1_000_000
    await gateway.post({"model": "m"})
    await taken.has(2)


async def test_a_span_that_cannot_be_written_holds_up_none(
    start_gateway: StartGateway,
    collector: tuple[FakeCollector, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, endpoint = collector
    real = otlp_export._nanoseconds
    monkeypatch.setattr(otlp_export, "_nanoseconds", lambda time: real(time if time < "2030" else None))  # type: ignore
    gateway = await start_gateway(configured(endpoint))
    await gateway.post({"model": "m", "unique_id": "a", "metadata": {"k\ud800": "v"}})
    await gateway.post({"model": "m", "unique_id": "b", "timestamp": "2031-01-01T00:00:00Z"})
    await gateway.post({"model": "m", "unique_id": "c", "timestamp": "2026-01-01T00:00:00Z"})
    await taken.has(2)
    assert taken.ids() == ["a", "c"] and "The span b cannot be exported" in caplog.text
    assert attributes(taken.spans[0])["respan.metadata.k?"] == "v"


async def test_one_of_several_does_it_and_another_goes_on(
    start_gateway: StartGateway, collector: tuple[FakeCollector, str]
) -> None:
    taken, endpoint = collector
    gateways = [await start_gateway(configured(endpoint)) for _ in range(3)]
    for number in range(30):
        await gateways[number % 3].post({"model": "m", "unique_id": f"{number:02}"})
    await taken.has(30)
    assert sorted(taken.ids()) == [f"{number:02}" for number in range(30)]


async def test_it_goes_on_where_it_was_after_a_restart(
    start_gateway: StartGateway, collector: tuple[FakeCollector, str]
) -> None:
    taken, endpoint = collector
    # Before it was configured.
    without = await start_gateway()
    await without.post({"model": "m", "unique_id": "before"})
    first = await start_gateway(configured(endpoint))
    await first.post({"model": "m", "unique_id": "a"})
    await taken.has(1)
    assert taken.ids() == ["a"]


async def test_a_gateway_takes_what_a_gateway_exports(start_gateway: StartGateway) -> None:
    other: Gateway = await start_gateway()
    exporting = await start_gateway(
        f'[otlp]\nendpoint = "{other.url}/v1/traces"\nheaders = {{ "Authorization" = "Bearer test-key-of-org-b" }}\n'
    )
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    sent = await exporting.span_of("/v1/chat/completions", json=body)
    async with asyncio.timeout(60):
        headers = {"Authorization": "Bearer test-key-of-org-b"}
        while True:
            async with other.session.get("/api/request-logs/list", headers=headers) as response:
                found = (await response.json())["results"]
            if found:
                break
            await asyncio.sleep(0.01)
    for name in ("response_model", "log_type", "cost", "prompt_tokens", "completion_tokens", "status"):
        assert found[0][name] == sent[name], name
    assert found[0]["prompt_messages"] == sent["prompt_messages"]
    assert found[0]["completion_message"]["content"] == sent["completion_message"]["content"]


async def test_a_collector_behind_tls(tmp_path: Path, certificates: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    async with collecting(context) as (taken, endpoint):
        (tmp_path / "c.toml").write_text(configured(endpoint))
        # A process as users start it: what it trusts is found out while it starts.
        with processes.serving(tmp_path, "--config", "c.toml", SSL_CERT_FILE=f"{certificates}/ca.pem") as process:
            headers = {"Authorization": f"Bearer {process.key}"}
            async with aiohttp.ClientSession(process.url, headers=headers) as client:
                await client.post("/api/request-logs/create/", json={"model": "m", "unique_id": "a"})
            await taken.has(1)
    assert taken.ids() == ["a"]
