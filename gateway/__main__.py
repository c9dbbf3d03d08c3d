"""The command `gateway`, also as `python -m gateway`."""

import os
import sys

from gateway import loading, signals


def main() -> int:
    """Runs one command; its exit status."""
    _open_what_is_closed()
    # Loading the rest takes half a second: a signal that comes meanwhile waits until there is someone to tell.
    signals.hold()
    with loading.quick():
        from gateway import cli

    return cli.main()


def _open_what_is_closed() -> None:
    """Whoever starts this may have closed standard input, output or error: the next files to be opened would take
    their numbers, and uvloop ends the process where it is to close one of those."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)


if __name__ == "__main__":
    sys.exit(main())
