"""Fills a database with spans like those of real calls, so that it can be told what they cost the next one."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gateway.bench.contenders import BenchError
from gateway.store import compress, hours, queries, sqlite

_AT_ONCE = 50_000
# What a span takes in the file beside what was said, its places in the indexes included.
_ROW_BYTES = 1000
# Over how long they came.
_DAYS = 30
# Every other one has a user, a thread of ten and a trace of five; one in fifty failed.
# A row's id is its first place in the journal. Ids grow with time, as those do that are minted (RFC 9562, section 5.7).
_SPANS = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)
INSERT INTO span (
    id, seq, is_call, organization_id, unique_id, organization_key_id, organization_key_name, environment, log_method,
    model, response_model, upstream, log_type, stream, status, status_code, start_time, timestamp, latency,
    tokens_per_second, routing_time, prompt_tokens, completion_tokens, total_request_tokens, cost_picos,
    customer_identifier, thread_identifier, trace_unique_id, span_unique_id, span_parent_id, metadata,
    is_custom_prompt, temperature, top_p, max_tokens
)
SELECT i, i, 1, 'default', id, 'bench', 'bench', 'prod', 'inference',
    'model-' || (i % 20), 'model', 'bench', 'chat', 0, iif(i % 50, 'success', 'failed'), iif(i % 50, 200, 500), time,
    time, 0.5 + i % 100 / 100.0, 500.0, 0.0001, 250, 250, 500, 187500000 + i % 1000,
    iif(i % 2, NULL, 'customer-' || (i % 1000)), iif(i % 2, NULL, 'thread-' || (i / 20)),
    iif(i % 2, NULL, 'trace-' || (i / 10)), 'span-' || i, iif(i % 10, 'span-' || (i / 10 * 10), NULL),
    iif(i % 4, NULL, '{"plan":"pro"}'), 0, 0.7, 1.0, 256
FROM (
    SELECT i, printf('%012x7%03x8%015x', 1700000000000 + i, i % 4096, abs(random()) % 1152921504606846976) AS id,
        strftime('%Y-%m-%dT%H:%M:%S', 1700000000 + i * :step_ms / 1000, 'unixepoch')
        || printf('.%03d000Z', i * :step_ms % 1000) AS time
    FROM n
)
"""
_CONTENTS = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)
INSERT INTO content (span_id, input, output, usage, full_request, full_response)
SELECT i, '=', '=', '=', :request, :answer FROM n
"""
_LEDGER = """
INSERT INTO ledger SELECT organization_id, substr(start_time, 1, 16), 'accepted', count(*) FROM span GROUP BY 1, 2
"""


def fill(path: Path, number: int, request: str, answer: str, tell: Callable[[int], None] = lambda done: None) -> None:
    """Makes a database of so many spans, each of a call with this request and this answer; `tell` hears how many there
    are so far. Raises BenchError where there is no room for them."""
    room = shutil.disk_usage(path.parent).free
    if number * (len(request) + len(answer) + _ROW_BYTES) > room:
        raise BenchError(f"no room in {path.parent} (set TMPDIR to a folder that has)")
    sqlite.create(path)
    with closing(sqlite.connect(path)) as db:
        # A fill that is cut short is of no use: nothing needs to be written twice, or in order.
        db.execute("PRAGMA journal_mode = OFF").fetchone()
        db.execute("PRAGMA synchronous = OFF")
        for first in range(1, number + 1, _AT_ONCE):
            last = min(first + _AT_ONCE - 1, number)
            db.execute("BEGIN IMMEDIATE")
            db.execute(_SPANS, {"first": first, "last": last, "step_ms": _DAYS * 86_400_000 // number})
            db.execute(_CONTENTS, {"first": first, "last": last, "request": request, "answer": answer})
            db.execute("UPDATE journal SET seq = ?", (last,))
            db.execute("COMMIT")
            tell(last)
        if number:
            db.execute(_LEDGER)
            # What is done behind the calls is done, as it is where so many have come in a month.
            queries.keep_place(db, compress.FOLLOWER, number)
        db.execute("PRAGMA journal_mode = WAL").fetchone()
    for _ in hours.sum_up(path, datetime.now(UTC)):
        tell(number)
    # The system would go on writing it during the rounds.
    with path.open("rb") as file:
        os.fsync(file.fileno())
