"""The gateway with its log off, to tell what its spans cost: everything else is as `gateway serve` has it.

python -m gateway.bench.unlogged --config PATH: serves until it is ended.
"""

import sys
from typing import Any

from gateway import __main__, recorder


class Unlogged(recorder.Recorder):
    """Keeps no span of a call."""

    def open_call(self, *args: Any, **kwargs: Any) -> None:
        return None

    def record_call(self, *args: Any, **kwargs: Any) -> None:
        return None


if __name__ == "__main__":
    from gateway import app

    app.Recorder = Unlogged  # type: ignore[misc]
    sys.argv.insert(1, "serve")
    sys.exit(__main__.main())
