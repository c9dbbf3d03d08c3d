"""The command `gateway`, also as `python -m gateway`."""

import sys

from gateway import signals


def main() -> int:
    """Runs one command; its exit status."""
    # Loading the rest takes half a second: a signal that comes meanwhile waits until there is someone to tell.
    signals.hold()
    from gateway import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
