"""respan-tracing and the OpenAI SDK, traced and not, before a running gateway."""

import sys
from typing import Any

import pytest

from tests.conftest import Gateway
from tests.e2e.programs import run_program

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="respan-tracing is for Python up to 3.13")

PROGRAM = "traced_program.py"
ASKED = '[{"role":"user","content":"Hi"}]'
# A span with what is under it: kind, name, status, input, output, children.
Outline = tuple[str, str | None, str, str | None, str | None, list[Any]]
CALL: Outline = (
    *("chat", None, "success", ASKED, '{"role":"assistant","content":"Hello there","refusal":null}'),
    [],
)
CLIENTS_SPAN: Outline = (
    *("chat", "llm.gpt-4o-mini", "success", ASKED),
    *('{"role":"assistant","content":"Hello there","finish_reason":"stop"}', [CALL]),
)


def tree_with(asked: Outline) -> list[Outline]:
    found = '{"found":"there"}'
    ask: Outline = ("task", "ask", "success", '{"args":["Hi"],"kwargs":{}}', "Hello there", [asked])
    look_up: Outline = ("tool", "look_up", "success", '{"args":["there"],"kwargs":{}}', found, [])
    helper: Outline = ("agent", "helper", "success", '{"args":[],"kwargs":{"word":"there"}}', found, [look_up])
    broken: Outline = ("task", "break", "failed", '{"args":["boom"],"kwargs":{}}', None, [])
    said = '{"said":"Hello there","found":"there"}'
    return [("workflow", "answer", "success", '{"args":["Hi"],"kwargs":{}}', said, [ask, helper, broken])]


def outline(node: dict[str, Any]) -> Outline:
    children = [outline(child) for child in node["children"]]
    return node["log_type"], node["span_name"], node["status"], node["input"], node["output"], children


async def ask(gateway: Gateway, path: str) -> Any:
    async with gateway.session.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def the_trace(gateway: Gateway, *arguments: str) -> dict[str, Any]:
    """The one trace that there is once the program has run."""
    trace_id = (await run_program(gateway, PROGRAM, *arguments)).strip()
    listed = (await ask(gateway, "/api/traces/list/"))["results"]
    trace: dict[str, Any] = await ask(gateway, f"/api/traces/{trace_id}/")
    assert listed == [{name: value for name, value in trace.items() if name != "span_tree"}]
    return trace


async def check_sums(gateway: Gateway, trace: dict[str, Any]) -> None:
    """That the call of the model is in each sum once."""
    sums = {"total_cost": 2.55e-06, "total_tokens": 11, "total_prompt_tokens": 9, "total_completion_tokens": 2}
    of_trace = {"llm_call_count": 1, "error_count": 1, **sums}
    assert {name: trace[name] for name in of_trace} == of_trace
    summary = await ask(gateway, "/api/request-logs/summary/")
    (by_model,) = (await ask(gateway, "/api/request-logs/groups/?group_by=model"))["results"]
    (by_customer,) = (await ask(gateway, "/api/request-logs/groups/?group_by=customer_identifier"))["results"]
    (user,) = (await ask(gateway, "/api/users/list/"))["results"]
    for found in (summary, by_model, by_customer, user):
        assert {name: found[name] for name in sums} == sums
    # Five decorated functions and the call.
    assert (summary["number_of_requests"], by_customer["number_of_requests"], user["number_of_requests"]) == (6, 6, 6)
    assert (by_model["model"], by_model["number_of_requests"]) == ("gpt-4o-mini", 1)


async def by_name(gateway: Gateway) -> dict[str | None, dict[str, Any]]:
    """The spans; the call itself, which no tracer named, under None."""
    spans = [await gateway.get(span["unique_id"]) for span in await gateway.spans()]
    found = {span["span_name"]: span for span in spans}
    assert len(found) == len(spans)
    return found


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_a_client_that_is_traced_too(gateway: Gateway, way: str) -> None:
    trace = await the_trace(gateway, "instrumented", way)
    assert [outline(root) for root in trace["span_tree"]] == tree_with(CLIENTS_SPAN)
    assert trace["span_count"] == 7
    await check_sums(gateway, trace)
    spans = await by_name(gateway)
    of_client, call = spans["llm.gpt-4o-mini"], spans[None]
    assert (of_client["gateway_log_id"], call["gateway_log_id"]) == (call["unique_id"], None)
    assert of_client["stream"] is call["stream"] is (way == "streamed")
    assert (of_client["prompt_tokens"], of_client["completion_tokens"]) == (9, 2)
    # The tracer sends an empty array for what the call did not say.
    assert of_client.get("reasoning_effort") is None


async def test_a_client_that_is_not(gateway: Gateway) -> None:
    trace = await the_trace(gateway, "plain", "whole")
    assert [outline(root) for root in trace["span_tree"]] == tree_with(CALL)
    assert trace["span_count"] == 6
    await check_sums(gateway, trace)


async def test_what_a_program_says_of_its_spans(gateway: Gateway) -> None:
    trace = await the_trace(gateway, "plain", "whole")
    assert (trace["name"], trace["customer_identifier"], trace["metadata"]["plan"]) == ("answer", "u-1", "pro")
    spans = await by_name(gateway)
    call = spans.pop(None)
    for span in spans.values():
        assert (span["customer_identifier"], span["thread_identifier"]) == ("u-1", "th-1")
        assert span["metadata"] == {"plan": "pro", "service.name": "program", "otel.scope.name": "respan.tracer"}
        assert span["log_method"] == "python_tracing"
    assert (call["customer_identifier"], call["log_method"]) == ("u-1", "inference")
    assert (spans["look_up"]["span_workflow_name"], spans["look_up"]["span_path"]) == ("helper", "look_up")
    failed = spans["break"]
    assert (failed["status_code"], failed["error_message"], failed["error_code"]) == (500, "boom", "ValueError")
