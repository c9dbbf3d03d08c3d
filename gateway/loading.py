"""Loading the rest of the program quickly: nearly all of a start is that."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_MEANWHILE = {
    # pydantic would read what every installed package says of itself, to find plug-ins.
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    # aiohttp reads the system's certificates twice, for sessions that name no TLS context: ours name one.
    "SSL_CERT_FILE": os.devnull,
    "SSL_CERT_DIR": os.devnull,
}


@contextmanager
def quick() -> Iterator[None]:
    """What is imported within does not do what takes long and is of no use here, a quarter of the time together.

    After it, aiohttp's default TLS context trusts nobody: a session that is to speak TLS brings its own.
    """
    before = {name: os.environ.get(name) for name in _MEANWHILE}
    os.environ.update(_MEANWHILE)
    # Many objects are made, and hardly any garbage.
    gc.disable()
    try:
        yield
    finally:
        # Else they would all be looked through at once.
        gc.freeze()
        gc.enable()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
