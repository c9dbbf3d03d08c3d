"""A day of spans as a team might have made them: what the screenshots show."""

import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

# Model, how often, its first token and its speed.
MODELS = (
    ("gpt-4o", 4, 0.55, 70),
    ("gpt-4o-mini", 7, 0.35, 110),
    ("claude-sonnet-4-5", 4, 0.9, 60),
    ("gemini-2.5-flash", 2, 0.4, 180),
)
TALKS = (
    (
        "Summarise the attached contract in five bullet points, with the notice period.",
        "Here are the five points:\n\n1. **Term**: two years, then month by month\n2. **Notice**: 90 days\n"
        "3. **Price**: fixed until 2027\n4. **Liability**: capped at the fees of a year\n5. **Law**: Austria",
    ),
    (
        "Which customers had no order in the last 90 days? Write the SQL.",
        "```sql\nSELECT c.id, c.name\nFROM customers c\nLEFT JOIN orders o\n  ON o.customer_id = c.id\n"
        " AND o.created_at > now() - interval '90 days'\nWHERE o.id IS NULL;\n```\n\nThat is an *anti-join*.",
    ),
    ("Translate this reply into German, and keep the tone friendly.", "Vielen Dank für Ihre Geduld! Ihr Paket ist da."),
    (
        "Why does my pod restart every few minutes?",
        "The OOM killer ends it, `exit code 137`:\n\n- look at `kubectl top pod`\n- raise the limit, or find the leak",
    ),
    ("Draft an answer to the customer about the late delivery.", "Dear Ms Novak, we are sorry that it took so long."),
    ("Extract all dates and amounts as JSON.", '{"dates": ["2026-03-01"], "amounts": [120.5, 80]}'),
)
FAILURES = ((429, "Rate limit reached for requests"), (504, "The upstream did not answer within 60 s"))
CUSTOMERS = ("acme", "globex", "initech", "umbrella", "hooli", "stark", "wayne", "tyrell")


def day(now: datetime, number: int = 900) -> Iterator[dict[str, Any]]:
    """The spans of the day that ends now; the same ones each time."""
    chosen = random.Random(7)
    for _ in range(number):
        model, _, first, speed = chosen.choices(MODELS, [one[1] for one in MODELS])[0]
        # Less at night, which is eight hours ago.
        hours = next(
            hours
            for hours in iter(lambda: chosen.uniform(0.02, 24), None)
            if chosen.random() < 0.55 + 0.45 * math.cos((hours - 20) / 24 * 2 * math.pi)
        )
        end = now - timedelta(hours=hours)
        asked, said = chosen.choice(TALKS)
        prompt, completion = int(chosen.lognormvariate(6.5, 0.8)), int(chosen.lognormvariate(5.2, 0.7))
        first_token = first * chosen.lognormvariate(0, 0.3)
        latency = first_token + completion / (speed * chosen.uniform(0.7, 1.2))
        span: dict[str, Any] = {
            "model": model,
            "input": [{"role": "system", "content": "You help a small team."}, {"role": "user", "content": asked}],
            "stream": True,
            "start_time": (end - timedelta(seconds=latency)).isoformat(),
            "timestamp": end.isoformat(),
            "latency": round(latency, 3),
            "customer_identifier": chosen.choice(CUSTOMERS),
            "thread_identifier": f"thread-{chosen.randrange(60)}",
            "metadata": {"plan": chosen.choice(("free", "pro", "pro")), "release": "2026.11"},
        }
        if chosen.random() < 0.025:
            status_code, message = chosen.choice(FAILURES)
            yield {**span, "status": "failed", "status_code": status_code, "error_message": message}
            continue
        yield {
            **span,
            "output": {"role": "assistant", "content": said},
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion},
            "time_to_first_token": round(first_token, 3),
            "tokens_per_second": round(completion / (latency - first_token), 1),
        }


def trip(now: datetime) -> Iterator[dict[str, Any]]:
    """A trace of an agent that plans a trip."""
    began = now - timedelta(seconds=30)

    def span(name: str, parent: str | None, log_type: str, start: float, end: float, **more: Any) -> dict[str, Any]:
        return {
            "model": "none",
            "log_type": log_type,
            "trace_unique_id": "trip-to-lisbon",
            "span_unique_id": name,
            "span_parent_id": parent,
            "span_name": name,
            "span_workflow_name": "travel planner",
            "start_time": (began + timedelta(seconds=start)).isoformat(),
            "timestamp": (began + timedelta(seconds=end)).isoformat(),
            "latency": end - start,
            "customer_identifier": "acme",
            **more,
        }

    def called(model: str, asked: str, said: str, prompt: int, completion: int, **more: Any) -> dict[str, Any]:
        return {
            "model": model,
            "input": [{"role": "user", "content": asked}],
            "output": {"role": "assistant", "content": said},
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion},
            **more,
        }

    yield span("plan a trip", None, "workflow", 0, 12.4, input="Three days in Lisbon", output="Here is your plan.")
    yield span(
        "understand", "plan a trip", "chat", 0.1, 1.3, **called("gpt-4o-mini", "What is asked?", "A trip", 420, 60)
    )
    yield span("research", "plan a trip", "agent", 1.3, 7.2)
    yield span("choose tools", "research", "chat", 1.4, 2.5, **called("gpt-4o", "Which tools?", "These", 900, 110))
    yield span("search flights", "research", "tool", 2.5, 5.1, input={"to": "LIS"}, output={"price": 180})
    yield span("search hotels", "research", "tool", 2.5, 6.1, input={"city": "Lisbon"}, output=[{"name": "Casa"}])
    failed = {"status": "failed", "status_code": 504, "error_message": "timed out"}
    yield span("forecast", "research", "tool", 2.5, 4.5, input={"city": "Lisbon"}, **failed)
    yield span("forecast again", "research", "tool", 4.6, 5.0, input={"city": "Lisbon"}, output={"sky": "clear"})
    yield span("rank", "research", "chat", 6.1, 7.2, **called("gpt-4o", "Rank these", "Casa first", 1900, 90))
    yield span("embed notes", "plan a trip", "embedding", 7.2, 7.5, model="text-embedding-3-small", input="notes")
    yield span(
        *("write the plan", "plan a trip", "chat", 7.5, 12.3),
        **called("claude-sonnet-4-5", "Write it down", TALKS[0][1], 2600, 640, stream=True, time_to_first_token=0.8),
    )
