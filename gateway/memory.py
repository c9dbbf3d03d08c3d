"""How the C library keeps memory that Python has freed."""

import ctypes

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
