"""SIGTERM, SIGINT and SIGHUP: held back while a process starts, then told to its event loop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGHUP, SIGINT, SIGTERM, Signals
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Loading it takes long, and signals are to be held before that.
    from asyncio import AbstractEventLoop

_HELD = (SIGTERM, SIGINT, SIGHUP)


def hold() -> None:
    """Keeps these signals waiting, here and in processes that are started from here; else they would end them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release() -> None:
    """Lets them through: those that nobody handles end the process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


@contextmanager
def handled(loop: "AbstractEventLoop", on_signal: Callable[[Signals], None], *numbers: Signals) -> Iterator[None]:
    """The loop calls `on_signal` for each of these signals, also for one that was held until now. Held again after."""
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            loop.remove_signal_handler(number)
