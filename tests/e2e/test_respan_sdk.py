"""The types of respan-sdk, dumped into a running gateway."""

import json
from typing import Any

from tests.conftest import Gateway
from tests.e2e.programs import run_program, told

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
QUESTION, ANSWER = [{"role": "user", "content": "Hi"}], {"role": "assistant", "content": "Hello", "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
STORED: dict[str, Any] = {
    **{"organization_id": "org-a", "unique_organization_id": "org-a", "organization_key_id": "team-a"},
    **{"organization_key_name": "team-a", "environment": "prod", "log_method": "logging_api", "log_type": "chat"},
    **{"model": "gpt-4o-mini", "status": "success", "status_code": 200, "warnings": "mind the gap", "stream": True},
    **{"start_time": "2026-01-02T03:04:05.250000Z", "timestamp": "2026-01-02T03:04:06.750000Z", "latency": 1.5},
    **{"time_to_first_token": 0.25, "tokens_per_second": 100 / 1.5, "cost": 0.001},
    **{"prompt_tokens": 50, "completion_tokens": 100, "total_request_tokens": 150},
    **{"prompt_cache_hit_tokens": 0, "prompt_cache_creation_tokens": 0},
    # The type of `usage` adds the last three.
    "usage": {
        **{"prompt_tokens": 50, "completion_tokens": 100, "total_tokens": 150, "cache_read_input_tokens": 0},
        **{"cache_creation_input_tokens": 0, "cache_creation_prompt_tokens": 0},
    },
    **{"input": QUESTION, "messages": QUESTION, "prompt_messages": QUESTION},
    **{"output": ANSWER, "completion_message": ANSWER, "tool_calls": [CALL], "tools": [TOOL], "tool_choice": "auto"},
    **{"temperature": 0.7, "top_p": 0.9, "max_tokens": 1024, "frequency_penalty": 0.1, "presence_penalty": 0.2},
    **{"response_format": {"type": "text"}, "stop": ["END"], "variables": {"v": "x"}, "is_custom_prompt": False},
    "customer_params": {"customer_identifier": "u-1", "name": "Ada", "email": "ada@example.org"},
    **{"customer_identifier": "u-1", "customer_name": "Ada", "customer_email": "ada@example.org"},
    **{"custom_identifier": "c-1", "group_identifier": "g-1", "evaluation_identifier": "e-1"},
    # The types overwrite the session with the group of the trace.
    **{"trace_group_identifier": "tg-1", "session_identifier": "tg-1", "trace_unique_id": "t-1"},
    **{"span_name": "ask", "span_parent_id": "p-1", "span_path": "answer.ask", "span_workflow_name": "answer"},
    **{"metadata": {"plan": "pro"}, "properties": {"n": 1, "deep": {"is": True}}, "note": "fine"},
    **{"category": "small talk", "full_request": {"a": 1}, "full_response": {"b": 2}, "blurred": False, "scores": {}},
    **{"disable_log": False, "cache_enabled": True, "encoding_format": "float", "disable_fallback": False},
    **{"field_name": "data: ", "delimiter": "\n\n", "request_breakdown": False},
}
OF_FULL = {
    **{"thread_identifier": "th-1", "tokens_per_second": 80.0, "positive_feedback": True},
    **{"prompt_id": "pid", "prompt_name": "pname"},
}


def without_none(value: Any) -> Any:
    """The value without the members that are null, as the types dump what was not given."""
    if isinstance(value, dict):
        return {name: without_none(item) for name, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


async def test_every_type_in_every_dump(gateway: Gateway) -> None:
    answers = json.loads(await run_program(gateway, "typed_program.py"))
    assert len(answers) == 12
    for of, (status, created) in answers.items():
        assert status == 201, (of, created)
        assert created.pop("message") == "log successful"
        expected = STORED if of.startswith("RespanLogParams") else STORED | OF_FULL
        found = await gateway.get(created["unique_id"])
        for span in (created, found):
            own_id = span.pop("span_unique_id")
            assert own_id == span["unique_id"] == span["id"], of
            assert without_none(told(span)) == expected, of
