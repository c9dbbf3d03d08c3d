"""What SQLite by itself asks for a span: the rows of calls, so many in a transaction, and nothing around it.

python -m gateway.bench.commits DATABASE SPANS SECONDS: prints what it came to, as JSON.
"""

import asyncio
import json
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from uuid import uuid4

from gateway.bench.harness import chat_body
from gateway.bench.upstream import whole_answer
from gateway.core import audit, content
from gateway.core.complete import Draft, complete
from gateway.core.jsontext import parse
from gateway.core.reading import stored_minute
from gateway.core.span import validate
from gateway.store import rows, sqlite
from gateway.store.batch import Apply, Batch, Write, commit
from gateway.store.queries import Entry

# SQLite's own default: with so many pages in the log, a commit puts them into the table.
_CHECKPOINT_PAGES = 1000
_MODEL = "bench-whole-1000"


@dataclass(frozen=True, slots=True)
class Committed:
    """`transaction_s`: the median of one. `seconds`, `cpu_s`: of all of them."""

    spans: int
    transaction_s: float
    seconds: float
    cpu_s: float


def measure(path: Path, each: int, seconds: float) -> Committed:
    """Commits `each` spans at a time into a new database, for so long."""
    sqlite.create(path)
    db, opened = sqlite.connect_writer(path, synchronous="normal")
    loop = asyncio.new_event_loop()
    took: list[float] = []
    cpu_s = 0.0

    def check() -> None:
        if sqlite.identity(path) != opened:
            raise sqlite.FileMoved

    with closing(db), closing(loop):
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}").fetchone()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or not took:
            writes = [Write(_span_of_a_call(), 0, 0.0, loop.create_future(), patient=True) for _ in range(each)]
            cpu, at = time.process_time(), time.perf_counter()
            commit(db, writes, check)
            took.append(time.perf_counter() - at)
            cpu_s += time.process_time() - cpu
    return Committed(each * len(took), median(took), sum(took), cpu_s)


def _span_of_a_call() -> Apply:
    now = datetime.now(UTC)
    request, answer = parse(chat_body(_MODEL, 1000)), parse(whole_answer(1000).partition(b"\r\n\r\n")[2])
    fields = {
        "model": _MODEL,
        "response_model": answer["model"],
        "organization_id": "default",
        "organization_key_id": "bench",
        "organization_key_name": "bench",
        "environment": "prod",
        "upstream": "bench",
        "log_method": "inference",
        "unique_id": uuid4().hex,
        "start_time": now.isoformat(),
        "latency": 0.5,
        "input": request["messages"],
        "output": answer["choices"][0]["message"],
        "usage": answer["usage"],
        "full_request": request,
        "full_response": answer,
    }
    draft = Draft(validate(fields), measured=True)
    draft.inside = content.parts(draft.span)
    complete(draft, now)
    span, said = rows.span_row(draft), rows.content_row(draft)
    accepted = Entry("default", stored_minute(now), audit.ACCEPTED)

    def apply(batch: Batch) -> bool:
        batch.count(accepted)
        return batch.insert(span, said)

    return apply


if __name__ == "__main__":
    _, database, spans, for_s = sys.argv
    print(json.dumps(asdict(measure(Path(database), int(spans), float(for_s)))))
