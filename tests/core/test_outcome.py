"""How a complete answer counts."""

from typing import Any

import pytest

from gateway.core.meter import Reading
from gateway.core.outcome import CLIENT_LEFT, OUR_FAULT, WE_STOPPED, Outcome, judged, label
from gateway.core.routing import kind_of


@pytest.mark.parametrize(
    ("path", "status", "reading", "outcome"),
    [
        ("chat/completions", 200, {"understood": True}, Outcome(200)),
        ("chat/completions", 200, {}, Outcome(200, "invalid_response", "The upstream's answer is no chat answer.")),
        ("audio/speech", 200, {}, Outcome(200)),
        ("chat/completions", 302, {}, Outcome(302, "upstream_error", "The upstream answered 302.")),
        ("responses", 200, {"error": {"code": 7, "message": "No."}}, Outcome(200, "7", "No.")),
        ("chat/completions", 429, {"response": {"error": {"type": "t", "message": 5}}}, "t"),
        ("chat/completions", 500, {"response": "  oops "}, Outcome(500, "upstream_error", "oops")),
    ],
)
def test_a_complete_answer(path: str, status: int, reading: dict[str, Any], outcome: Outcome | str) -> None:
    found = judged(kind_of(path), status, Reading(**reading))
    assert (found.error_code if isinstance(outcome, str) else found) == outcome


def test_labels_are_few() -> None:
    outcomes = [Outcome(200), CLIENT_LEFT, WE_STOPPED, OUR_FAULT, Outcome(404, "x"), Outcome(200, "invalid_response")]
    assert [label(outcome) for outcome in outcomes] == ["success", "client_gone", "5xx", "5xx", "4xx", "invalid"]
