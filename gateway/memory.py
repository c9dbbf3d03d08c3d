"""How the C library keeps memory that Python has freed."""

import ctypes

# mallopt(3): blocks of at least this size come from the system one by one, and go back to it when they are freed.
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 256 * 1024


def give_large_blocks_back() -> None:
    """Keeps the C library from holding on to the memory of large bodies; nothing where it is not glibc.

    By itself glibc raises the size from which blocks go back to that of the largest one freed, up to 32 MB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
