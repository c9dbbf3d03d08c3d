"""Prints how long `gateway serve` takes from exec to its first answer, and its memory when idle.

python -m tests.bench.start [ROUNDS]
"""

import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.processes import Process


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def one_round() -> tuple[float, float, float]:
    """Seconds to the ready line and to the first answer; MB a second later."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        gateway = Process(Path(folder))
        ready = time.perf_counter() - began
        urllib.request.urlopen(f"{gateway.url}/ready").read()
        answered = time.perf_counter() - began
        time.sleep(1)  # the price table is loaded behind the first answer
        memory = resident_mb(gateway.process.pid)
        gateway.close()
    return ready, answered, memory


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    results = []
    for number in range(rounds):
        results.append(one_round())
        print(f"round {number + 1} of {rounds}: ready {results[-1][0]:.2f} s, {results[-1][2]:.0f} MB", file=sys.stderr)
    ready, answered, memory = (statistics.median(column) for column in zip(*results, strict=True))
    print(f"ready after {ready:.2f} s, first answer after {answered:.2f} s, idle at {memory:.0f} MB (medians)")


if __name__ == "__main__":
    main()
