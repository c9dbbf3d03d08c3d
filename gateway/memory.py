"""What happens to memory that is no longer used: how Python looks for it, and how the C library keeps it."""

import asyncio
import ctypes
import gc

# mallopt(3), as numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# More than is read from a socket at once: taking each of those from the system would cost more than reading it.
_LARGE_BYTES = 512 * 1024


def give_large_blocks_back() -> None:
    """Keeps the C library from holding on to the memory of large bodies; nothing where it is not glibc.

    By itself glibc raises the size from which blocks go back to that of the largest one freed, up to 32 MB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


# Objects made, less those freed, before the youngest are looked through; a call makes a few hundred, and few that only
# this finds. A quarter of it makes each look shorter, and calls some percent dearer. The other two: how many such looks
# before the next older ones are included.
_COLLECT_AFTER = (10_000, 20, 20)


def collect_less_once(loaded: "asyncio.Future[None]") -> None:
    """Looks for no garbage until everything is loaded; from then on rarely, and never through what was there by then:
    to look through that holds up calls for a tenth of a second."""
    gc.disable()
    loaded.add_done_callback(lambda _: _collect_less())


def _collect_less() -> None:
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    gc.enable()
