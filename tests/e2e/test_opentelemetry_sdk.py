"""OpenTelemetry's own SDK and exporter before a running gateway."""

from typing import Any

import pytest

from tests.conftest import Gateway
from tests.e2e.programs import run_program, told

PATHS = ("/v1/traces", "/api/v1/traces", "/api/v2/traces")
SHARED = {
    **{"organization_id": "org-a", "unique_organization_id": "org-a", "organization_key_id": "team-a"},
    **{"organization_key_name": "team-a", "environment": "prod", "log_method": "tracing_integration"},
    **{"trace_unique_id": f"{0xABC:032x}", "stream": False, "is_custom_prompt": False, "blurred": False, "scores": {}},
    **{"model": "", "temperature": 1.0, "top_p": 1.0},
}
MADE_BY = {"service.name": "shop", "otel.scope.name": "shop.tracer", "otel.scope.version": "1.2"}
REQUEST = {
    **SHARED,
    **{"span_unique_id": f"{0xA1:016x}", "span_name": "request", "log_type": "workflow", "status": "success"},
    **{"status_code": 200, "customer_identifier": "u-1", "session_identifier": "s-1", "latency": 5.0},
    **{"start_time": "2026-01-02T12:00:00.000000Z", "timestamp": "2026-01-02T12:00:05.000000Z"},
    "span_links": [{"trace_id": f"{0xDEF:032x}", "span_id": f"{0xB1:016x}"}],
    "metadata": {**MADE_BY, "tags": '["a","b"]', "ratio": "0.5", "is_new": "true"},
}
QUESTION = [{"role": "user", "content": "Hi"}]
ANSWER = {"role": "assistant", "content": "Hello", "finish_reason": "stop"}
CHAT = {
    **SHARED,
    **{"span_unique_id": f"{0xA2:016x}", "span_parent_id": f"{0xA1:016x}", "span_name": "chat gpt-4o-mini"},
    **{"log_type": "chat", "status": "success", "status_code": 200, "model": "gpt-4o-mini", "provider_id": "openai"},
    **{"start_time": "2026-01-02T12:00:01.000000Z", "timestamp": "2026-01-02T12:00:03.000000Z", "latency": 2.0},
    **{"prompt_tokens": 1_000_000, "completion_tokens": 500_000, "total_request_tokens": 1_500_000, "cost": 0.45},
    **{"tokens_per_second": 250_000.0, "temperature": 0.25, "max_tokens": 64, "metadata": MADE_BY},
    **{"input": QUESTION, "messages": QUESTION, "prompt_messages": QUESTION},
    **{"output": ANSWER, "completion_message": ANSWER},
}
TOOL = {
    **SHARED,
    **{"span_unique_id": f"{0xA3:016x}", "span_parent_id": f"{0xA1:016x}", "span_name": "execute_tool"},
    **{"log_type": "tool", "input": {"word": "Hi"}, "metadata": MADE_BY, "latency": 1.000000001},
    **{"start_time": "2026-01-02T12:00:03.000000Z", "timestamp": "2026-01-02T12:00:04.000000Z"},
    **{"status": "failed", "status_code": 500, "error_message": "not found", "error_code": "KeyError"},
}


async def stored(gateway: Gateway) -> list[dict[str, Any]]:
    """All spans with all of their fields, newest first."""
    return [told(await gateway.get(span["unique_id"])) for span in await gateway.spans()]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["", "json:"])
async def test_what_is_exported_twice_is_stored_once(gateway: Gateway, path: str, encoding: str) -> None:
    await run_program(gateway, "exporting_program.py", encoding + path, encoding + path)
    assert await stored(gateway) == [REQUEST, TOOL, CHAT]


async def test_both_encodings_are_of_the_same_spans(gateway: Gateway) -> None:
    await run_program(gateway, "exporting_program.py", *PATHS, *(f"json:{path}" for path in PATHS))
    assert await stored(gateway) == [REQUEST, TOOL, CHAT]
