"""Asks a gateway for what it has stored, as clients of its API do."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from statistics import quantiles

from gateway.bench.contenders import HOST, Running
from gateway.bench.harness import Sample

_LIST, _SUMMARY, _GROUPS = (f"/api/request-logs/{name}/" for name in ("list", "summary", "groups"))
# Of spans that `fill` makes. What an index serves comes first, then what looks at every row.
QUESTIONS = (
    ("newest 50", _LIST),
    ("page 10,000", f"{_LIST}?page=10000"),
    ("a day's", f"{_LIST}?start_time=2023-11-20T00:00:00Z&end_time=2023-11-21T00:00:00Z"),
    ("of a model", f"{_LIST}?model=model-7"),
    ("of a user", f"{_LIST}?customer_identifier=customer-8"),
    ("of a thread", f"{_LIST}?thread_identifier=thread-77"),
    ("of a trace", f"{_LIST}?trace_unique_id=trace-77"),
    ("of a plan, in metadata", f"{_LIST}?metadata__plan=pro"),
    ("that failed", f"{_LIST}?status=failed"),
    ("one trace as a tree", "/api/traces/trace-77/"),
    ("newest 50 traces", "/api/traces/list/"),
    ("summary of all", _SUMMARY),
    ("summary of a model", f"{_SUMMARY}?model=model-7"),
    ("summary of a user", f"{_SUMMARY}?customer_identifier=customer-8"),
    ("groups by model", f"{_GROUPS}?group_by=model"),
    ("groups by user", f"{_GROUPS}?group_by=customer_identifier"),
    ("groups by trace", f"{_GROUPS}?group_by=trace"),
    ("dearest 50", f"{_LIST}?sort_by=-cost"),
    ("users", "/api/users/list/"),
    ("threads", "/api/log_threads/"),
)
_WITHIN_S = 600.0
_ASKED_AT_LEAST = 20


def asked(running: Running, path: str, beside: Callable[[], tuple[Sample, str]]) -> tuple[list[float], str]:
    """How long a question took, each time, in seconds, while something else goes on; and what is wrong."""
    took: list[float] = []
    client = HTTPConnection(HOST, running.port, timeout=_WITHIN_S)
    with ThreadPoolExecutor(1) as pool, closing(client):
        goes_on = pool.submit(beside)
        while not goes_on.done() or len(took) < _ASKED_AT_LEAST:
            began = time.perf_counter()
            client.request("GET", path, headers=running.contender.headers)
            answer = client.getresponse()
            answer.read()
            took.append(time.perf_counter() - began)
            if answer.status != 200:
                return took, f"{path} was answered with {answer.status}"
        return took, goes_on.result()[1]


def most(took: list[float]) -> float:
    """The 95th percentile."""
    return quantiles(took, n=20)[-1]
