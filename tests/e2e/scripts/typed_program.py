"""Posts spans made with the types of respan-sdk, each dumped in the ways that users dump it.

Prints as JSON what the gateway answered, a status and a span, by the type's name and the way.
"""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from pydantic import BaseModel
from respan_sdk import RespanFullLogParams, RespanLogParams, RespanTextLogParams

ADDRESS = f"{os.environ['GATEWAY_URL']}/api/request-logs/create/"
HEADERS = {"Authorization": f"Bearer {os.environ['GATEWAY_KEY']}", "Content-Type": "application/json"}
START = datetime(2026, 1, 2, 3, 4, 5, 250_000, UTC)
USER = {"role": "user", "content": "Hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWER = {"role": "assistant", "content": "Hello", "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

VALUES: dict[str, Any] = {
    **{"model": "gpt-4o-mini", "prompt_messages": [USER], "completion_message": ANSWER, "tools": [TOOL]},
    **{"start_time": START, "timestamp": START + timedelta(seconds=1.5), "latency": 1.5, "time_to_first_token": 0.25},
    **{"prompt_tokens": 50, "completion_tokens": 100, "cost": 0.001, "stream": True, "status_code": 200},
    "usage": {"prompt_tokens": 50, "completion_tokens": 100, "total_tokens": 150},
    **{"temperature": 0.7, "top_p": 0.9, "max_tokens": 1024, "frequency_penalty": 0.1, "presence_penalty": 0.2},
    "customer_params": {"customer_identifier": "u-1", "name": "Ada", "email": "ada@example.org"},
    **{"custom_identifier": "c-1", "group_identifier": "g-1", "evaluation_identifier": "e-1"},
    **{"metadata": {"plan": "pro"}, "properties": {"n": 1, "deep": {"is": True}}, "variables": {"v": "x"}},
    **{"trace_unique_id": "t-1", "span_name": "ask", "span_parent_id": "p-1", "span_workflow_name": "answer"},
    **{"session_identifier": "s-1", "trace_group_identifier": "tg-1", "span_path": "answer.ask", "note": "fine"},
    **{"response_format": {"type": "text"}, "stop": ["END"], "tool_choice": "auto", "warnings": "mind the gap"},
    **{"full_request": {"a": 1}, "full_response": {"b": 2}, "cache_enabled": True, "category": "small talk"},
}
OF_FULL: dict[str, Any] = {
    **{"thread_identifier": "th-1", "environment": "test", "log_type": "chat", "status": "success"},
    **{"tokens_per_second": 80.0, "positive_feedback": True, "prompt_id": "pid", "prompt_name": "pname"},
}
DUMPS: dict[str, Callable[[BaseModel], str]] = {
    "json without none": lambda made: json.dumps(made.model_dump(mode="json", exclude_none=True)),
    "json": lambda made: json.dumps(made.model_dump(mode="json")),
    "python": lambda made: json.dumps(made.model_dump(), default=str),
    "text": lambda made: made.model_dump_json(),
}
TYPES: dict[type[BaseModel], dict[str, Any]] = {
    RespanLogParams: VALUES,
    RespanFullLogParams: VALUES | OF_FULL,
    RespanTextLogParams: VALUES | OF_FULL,
}

answers: dict[str, tuple[int, Any]] = {}
for of_type, values in TYPES.items():
    for way, dump in DUMPS.items():
        # The types change what they are made of.
        body = dump(of_type(**json.loads(json.dumps(values, default=str))))
        answer = requests.post(ADDRESS, body.encode(), headers=HEADERS, timeout=60)
        answers[f"{of_type.__name__}, {way}"] = answer.status_code, answer.json()
print(json.dumps(answers))
