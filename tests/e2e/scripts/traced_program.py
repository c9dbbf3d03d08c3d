"""A program traced with respan-tracing that asks a model through the gateway; prints the id of its trace.

`instrumented`: its OpenAI client is traced too. `plain`: it is not, and the program says itself in which trace it asks.
`streamed` asks for a stream.
"""

import os
import sys
from typing import Any

from openai import OpenAI
from opentelemetry.propagate import inject
from respan_tracing import Instruments, RespanTelemetry, agent, get_client, task, tool, workflow
from respan_tracing.exporters import propagate_attributes

URL, KEY = os.environ["GATEWAY_URL"], os.environ["GATEWAY_KEY"]
IS_INSTRUMENTED, IS_STREAMED = "instrumented" in sys.argv, "streamed" in sys.argv

telemetry = RespanTelemetry(
    app_name="program",
    api_key=KEY,
    base_url=f"{URL}/api",
    block_instruments=None if IS_INSTRUMENTED else {Instruments.OPENAI},
)
client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)


@task(name="ask")
def ask(question: str) -> str:
    headers: dict[str, str] = {}
    if not IS_INSTRUMENTED:
        inject(headers)
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if IS_STREAMED else {}
    answer: Any = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": question}],
        extra_headers=headers,
        extra_body={"respan_params": {"customer_identifier": "u-1"}},
        **more,
    )
    if IS_STREAMED:
        return "".join(choice.delta.content or "" for chunk in answer for choice in chunk.choices)
    return str(answer.choices[0].message.content)


@tool(name="look_up")
def look_up(word: str) -> dict[str, str]:
    return {"found": word}


@agent(name="helper")
def helper(word: str) -> dict[str, str]:
    return look_up(word)


@task(name="break")
def broken(why: str) -> None:
    raise ValueError(why)


@workflow(name="answer")
def answer(question: str) -> dict[str, Any]:
    print(get_client().get_current_trace_id())
    said = ask(question)
    found = helper(word="there")
    try:
        broken("boom")
    except ValueError:
        pass
    return {"said": said, **found}


with propagate_attributes(customer_identifier="u-1", thread_identifier="th-1", metadata={"plan": "pro"}):
    answer("Hi")
telemetry.flush()
