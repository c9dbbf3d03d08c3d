"""The commands: serve, check, demo."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gateway import __version__, config
from gateway.app import LocalKey, local_key, opened, served
from gateway.config import Settings
from gateway.errors import ConfigError, GatewayError
from gateway.workers import WORKER_ENV, Supervisor, parent_gone

log = logging.getLogger("gateway")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    # aiohttp tells of every malformed request; that is no trouble of ours.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    try:
        status: int = options.command(options)
        return status
    except ConfigError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
    except GatewayError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway", description="Forwards LLM calls to their upstream and keeps one durable span per call."
    )
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the gateway", description="Runs the gateway.")
    _add_config(serve)
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on; 0 picks a free one (default: 8080)")
    serve.add_argument("--workers", type=int, metavar="N", help="processes that share the port (default: 1)")
    serve.set_defaults(command=_serve)

    check = commands.add_parser(
        "check",
        help="check the configuration",
        description="Prints the resolved settings, secrets masked, or every mistake at once.",
    )
    _add_config(check)
    check.set_defaults(command=_check)

    demo = commands.add_parser(
        "demo",
        help="see it work, without an account",
        description="Starts with the built-in echo model and a fresh database, sends a few real calls, prints their "
        "spans and goes on serving.",
    )
    demo.add_argument("--port", type=int, help="port to listen on (default: 8080; with --once a free one)")
    demo.add_argument("--once", action="store_true", help="end after the spans are printed")
    demo.set_defaults(command=_demo)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="PATH", help="configuration file (default: ./config.toml if it is there)"
    )


def _serve(options: argparse.Namespace) -> int:
    settings = _with_flags(config.load(options.config), options)
    if WORKER_ENV in os.environ:
        return asyncio.run(_run(settings, _announce, shared_port=True))
    if (key := local_key(settings)) is not None:
        _tell_key(key)
    announce = partial(_announce, key=key)
    if settings.server.workers > 1:
        return asyncio.run(Supervisor(settings, options.config).run(announce))
    return asyncio.run(_run(settings, announce))


async def _run(settings: Settings, announce: Callable[[str], None], *, shared_port: bool = False) -> int:
    """Serves until SIGTERM or SIGINT; a second one ends at once."""
    stop = _stop_signal()
    async with opened(settings) as app, served(settings, app, shared_port=shared_port) as url:
        announce(url)
        await (parent_gone(stop) if shared_port else stop.wait())
    return 0


def _check(options: argparse.Namespace) -> int:
    print(config.resolved(config.load(options.config)))
    return 0


def _demo(options: argparse.Namespace) -> int:
    # rich is for this command alone, and takes its time to load.
    from gateway import demo

    return asyncio.run(demo.run(port=options.port, once=options.once, stop=_stop_signal))


def _with_flags(settings: Settings, options: argparse.Namespace) -> Settings:
    flags = {name: getattr(options, name) for name in ("host", "port", "workers")}
    given = {name: value for name, value in flags.items() if value is not None}
    return config.with_server(settings, given)


def _tell_key(key: LocalKey) -> None:
    if key.is_new:
        text = f"No [[keys]] are configured, so this key was made and is kept in {key.file}: {key.key}"
    else:
        text = f"The key is in {key.file}."
    print(text, file=sys.stderr)


def _announce(url: str, key: LocalKey | None = None) -> None:
    if key is not None and key.is_new:
        print(
            "Point an OpenAI SDK at the gateway:\n\n"
            "  from openai import OpenAI\n"
            f'  client = OpenAI(base_url="{url}/v1", api_key="{key.key}")\n',
            file=sys.stderr,
        )
    # The last thing said: who waits for this line finds the key told already.
    print(f"listening on {url}", flush=True)


def _stop_signal() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; the second one ends the process."""
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop
