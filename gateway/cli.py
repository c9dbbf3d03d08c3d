"""The commands: serve, check, audit, spans, trace, export, import, prune, demo, bench."""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from errno import ENOSPC
from functools import partial
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGPIPE, SIGTERM, Signals
from typing import TextIO

import uvloop

from gateway import __version__, config, dashboard, signals
from gateway.app import Gateway, LocalKey, kept, opened, served
from gateway.clock import Clock
from gateway.config import Settings
from gateway.core import retention
from gateway.core.audit import Audit, whole_minutes
from gateway.errors import ConfigError, GatewayError
from gateway.memory import collect_less_once, give_large_blocks_back
from gateway.reload import Configuration
from gateway.store.prune import Keep
from gateway.store.store import audits
from gateway.web.server import raise_file_limit
from gateway.workers import WORKER_ENV, Supervisor, settings_from_parent

log = logging.getLogger("gateway")

_LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_LOG_TIME = "%Y-%m-%dT%H:%M:%S%z"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=_LOG_FORMAT, datefmt=_LOG_TIME)
    if options.command not in (_serve, _demo):
        # Those two handle them.
        signals.release()
    try:
        status: int = options.command(options)
        return status
    except ConfigError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
    except GatewayError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        return 128 + SIGINT
    except BrokenPipeError:
        # Nobody reads on, as behind `| head`.
        return 128 + SIGPIPE
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
    finally:
        _flush()
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway", description="Forwards LLM calls to their upstream and keeps one durable span per call."
    )
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="run the gateway",
        description="Runs the gateway. SIGTERM ends it, with the calls that run; "
        "SIGHUP reads keys, upstreams and prices again.",
    )
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

    audit = commands.add_parser(
        "audit",
        help="account for every call",
        description="Lays what was accepted beside what is stored, per organization. Exit 1 if a call is missing.",
    )
    _add_config(audit)
    audit.add_argument("--start", type=_time, metavar="TIME", help="from here on, ISO 8601 (default: the beginning)")
    audit.add_argument("--end", type=_time, metavar="TIME", help="up to here (default: now)")
    audit.add_argument("--json", action="store_true", help="as JSON")
    audit.set_defaults(command=_audit)

    _add_spans(commands.add_parser("spans", help="show spans", description=_ABOUT_SPANS))
    _add_trace(commands.add_parser("trace", help="show a trace", description="Shows the tree of a trace."))
    _add_transfers(commands)
    _add_prune(
        commands.add_parser(
            "prune",
            help="delete old spans",
            description="Deletes old spans, in slices that hold up no call, and gives their space back. Without "
            "flags: as [store] prune_older_than and prune_max_size say.",
        )
    )
    demo = commands.add_parser(
        "demo",
        help="see it work, without an account",
        description="Starts with the built-in echo model and a fresh database, sends a few real calls, prints their "
        "spans and goes on serving.",
    )
    demo.add_argument("--port", type=int, help="port to listen on (default: 8080; with --once a free one)")
    demo.add_argument("--once", action="store_true", help="end after the spans are printed")
    demo.set_defaults(command=_demo)
    _add_bench(
        commands.add_parser(
            "bench",
            help="measure what the gateway costs",
            description="Measures the gateway beside its upstream, bare aiohttp and other gateways, in one run on this "
            "machine. Exit 1 if a round was void: a request failed, or a span was not stored.",
        )
    )
    return parser


_ABOUT_SPANS = (
    "Shows the newest spans, the newest last. A condition is a field of the API, = != > >= < <= or ~ (holds, whatever "
    "the case), and a value: model=echo, cost>=0.01, metadata__plan=pro."
)


def _add_spans(spans: argparse.ArgumentParser) -> None:
    _add_config(spans)
    _add_organization(spans)
    spans.add_argument("--where", action="append", default=[], metavar="CONDITION", help="only these; all have to hold")
    spans.add_argument("--since", type=_time, metavar="TIME", help="only those that ended from then on, ISO 8601")
    spans.add_argument("--limit", type=_number, default=50, metavar="N", help="how many (default: 50)")
    spans.add_argument("--follow", action="store_true", help="go on with those that come")
    spans.add_argument("--json", action="store_true", help="a line of JSON each")
    spans.set_defaults(command=_spans)


def _add_trace(trace: argparse.ArgumentParser) -> None:
    trace.add_argument("trace_unique_id", metavar="ID", help="its trace_unique_id")
    _add_config(trace)
    _add_organization(trace)
    trace.add_argument("--json", action="store_true", help="as JSON")
    trace.set_defaults(command=_trace)


def _add_transfers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export",
        help="write spans to a file",
        description="Writes spans to a file, in the order in which they came; conditions are those of `gateway spans`.",
    )
    export.add_argument("file", nargs="?", type=Path, metavar="FILE", help="where to (default: standard output)")
    _add_config(export)
    _add_organization(export)
    export.add_argument(
        "--where", action="append", default=[], metavar="CONDITION", help="only these; all have to hold"
    )
    export.add_argument("--since", type=_time, metavar="TIME", help="only those that ended from then on, ISO 8601")
    export.add_argument(
        "--format", choices=("jsonl", "csv", "parquet"), help="default: as the file's name says, else jsonl"
    )
    export.set_defaults(command=_export)
    bring_in = commands.add_parser(
        "import",
        help="store the spans of such a file",
        description="Stores the spans of files that `gateway export` wrote; those that are there already stay as they "
        "are. Exit 1 where some could not be stored.",
    )
    bring_in.add_argument("files", nargs="+", type=Path, metavar="FILE")
    _add_config(bring_in)
    bring_in.add_argument("--organization", metavar="ID", help="whose they become (default: as the file says)")
    bring_in.set_defaults(command=_import)


def _add_prune(prune: argparse.ArgumentParser) -> None:
    _add_config(prune)
    prune.add_argument("--older-than", type=_age, metavar="AGE", help="spans older than that: 12h, 30d, 8w")
    prune.add_argument("--max-size", type=_size, metavar="SIZE", help="the oldest, while the file holds more: 10GB")
    prune.add_argument("--dry-run", action="store_true", help="say how many and about how much; delete nothing")
    prune.set_defaults(command=_prune)


def _add_organization(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--organization", metavar="ID", help="whose (default: the only one)")


def _add_bench(bench: argparse.ArgumentParser) -> None:
    names = (
        *("calls", "latency", "others", "streams", "paced", "posts", "commits"),
        *("start", "memory", "workers", "sizes", "stored", "reads"),
    )
    bench.add_argument(
        "--only", nargs="+", choices=names, metavar="MEASURE", default=[], help=f"some of: {', '.join(names)}"
    )
    bench.add_argument("--rounds", type=_round_number, metavar="N", help="rounds of each (default: as each needs)")
    bench.add_argument("--seconds", type=_seconds, metavar="S", help="length of a round (default: as each needs)")
    bench.add_argument("--quick", action="store_true", help="everything in a minute or two, less exactly")
    bench.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    bench.add_argument("--plot", type=Path, metavar="PATH", help="draw them there, as SVG")
    bench.add_argument("--readme", type=Path, metavar="PATH", help="put them between the marks in this file")
    bench.add_argument("--peers", type=Path, metavar="FOLDER", help="where other gateways are installed")
    bench.set_defaults(command=_bench)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="PATH", help="configuration file (default: ./config.toml if it is there)"
    )


def _serve(options: argparse.Namespace) -> int:
    raise_file_limit()
    give_large_blocks_back()
    if WORKER_ENV in os.environ:
        return uvloop.run(_work())
    configuration = Configuration(partial(_load, options), _tell_key)
    announce = partial(_announce, configuration=configuration)
    if configuration.settings.server.workers > 1:
        return asyncio.run(Supervisor(configuration).run(announce))
    return uvloop.run(_run(configuration, announce))


async def _run(configuration: Configuration, announce: Callable[[str], None]) -> int:
    """Serves until SIGTERM or SIGINT; a second one ends at once. SIGHUP reloads the configuration.

    Gives 1 where the store has taken no spans until the end.
    """
    settings = configuration.settings
    with _stop_signal() as stop:
        async with opened(settings) as gateway, served(settings, gateway) as url:
            collect_less_once(gateway.loading)
            announce(url)
            loop = asyncio.get_running_loop()
            with signals.handled(loop, lambda _: configuration.reload(gateway.reload), SIGHUP):
                await stop.wait()
    return 1 if gateway.abandoned else 0


async def _work() -> int:
    """Serves as one of several workers, until SIGTERM or until the process that started it is gone."""
    stop = asyncio.Event()
    # Who stops the whole group, as systemd does, stops a worker twice: the second time must not cut its calls. The
    # parent ends it at once by SIGKILL.
    with signals.handled(asyncio.get_running_loop(), lambda _: stop.set(), SIGTERM, SIGINT):
        given = settings_from_parent()
        settings = await anext(given, None)
        if settings is None:
            return 1
        async with opened(settings) as gateway, served(settings, gateway, shared_port=True) as url:
            collect_less_once(gateway.loading)
            _tell_ready(url)
            following = asyncio.create_task(_follow(given, gateway, stop), name="follow the parent")
            await stop.wait()
            following.cancel()
    return 1 if gateway.abandoned else 0


async def _follow(given: AsyncIterator[Settings], gateway: Gateway, stop: asyncio.Event) -> None:
    """Takes over what the parent puts in force; stops when that is gone."""
    try:
        async for settings in given:
            try:
                gateway.reload(settings)
            except (GatewayError, OSError) as error:
                log.error("A worker could not reload, its old settings stay in force: %s", error)
    finally:
        stop.set()


def _check(options: argparse.Namespace) -> int:
    _say(config.resolved(config.load(options.config)), sys.stdout)
    return 0


def _audit(options: argparse.Namespace) -> int:
    if options.start is not None and options.end is not None and options.end < options.start:
        print("--end must not be before --start.", file=sys.stderr)
        return 2
    path = config.load(options.config).store.path
    found = audits(path, *whole_minutes(options.start, options.end))
    if options.json:
        text = json.dumps({organization_id: one.as_json() for organization_id, one in found.items()}, indent=2)
    else:
        texts = [_audit_text(organization_id, one) for organization_id, one in found.items()]
        text = "\n\n".join(texts) or "Nothing has come in yet."
    _say(text, sys.stdout)
    return 0 if all(one.missing == 0 for one in found.values()) else 1


def _audit_text(organization_id: str, found: Audit) -> str:
    calls = {f"settled: {outcome}": number for outcome, number in found.settled.items()}
    calls |= {"open": found.open, "interrupted": found.interrupted, "dropped": found.dropped}
    calls |= {"deleted": found.deleted_calls}
    lines = [
        f"organization {organization_id}",
        f"{'calls accepted':<24}{found.accepted:>12,}",
        *(f"  {name:<22}{number:>12,}" for name, number in calls.items()),
        f"{'spans posted':<24}{found.posted:>12,}",
        f"  {'repeated ids':<22}{found.repeated:>12,}",
        f"  {'refused':<22}{found.refused:>12,}",
        f"  {'deleted':<22}{found.deleted_posts:>12,}",
        "Everything is accounted for." if found.missing == 0 else f"MISSING: {found.missing:,}.",
    ]
    return "\n".join(lines)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 2026-01-02T03:04") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of spans")
    return int(text)


def _age(text: str) -> timedelta:
    try:
        return retention.age(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> int:
    try:
        return retention.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _round_number(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _spans(options: argparse.Namespace) -> int:
    # rich takes its time to load.
    from rich.console import Console

    from gateway import show

    given = {name: getattr(options, name) for name in ("organization", "where", "since", "limit", "follow", "json")}
    return show.spans(show.Options(config.load(options.config).store.path, **given), Console())


def _trace(options: argparse.Namespace) -> int:
    from rich.console import Console

    from gateway import show

    path = config.load(options.config).store.path
    return show.trace(path, options.organization, options.trace_unique_id, Console(), as_json=options.json)


def _export(options: argparse.Namespace) -> int:
    from gateway import transfer

    given = {name: getattr(options, name) for name in ("file", "format", "organization", "where", "since")}
    return transfer.export(transfer.Export(config.load(options.config).store.path, **given))


def _import(options: argparse.Namespace) -> int:
    from gateway import transfer

    return transfer.bring_in(config.load(options.config).store.path, options.files, options.organization)


def _prune(options: argparse.Namespace) -> int:
    from gateway import pruning

    store = config.load(options.config).store
    keep = Keep(options.older_than, options.max_size)
    if keep == Keep():
        keep = kept(store.prune_older_than, store.prune_max_size)
    return pruning.run(store.path, keep, dry=options.dry_run)


def _demo(options: argparse.Namespace) -> int:
    # rich is for this command alone, and takes its time to load.
    from gateway import demo

    return uvloop.run(demo.run(port=options.port, once=options.once, stop=partial(_stop_signal, SIGHUP)))


def _bench(options: argparse.Namespace) -> int:
    # For this command alone, like the demo.
    from gateway.bench import command

    names = ("only", "rounds", "seconds", "quick", "json", "plot", "readme", "peers")
    return command.run(command.Options(**{name: getattr(options, name) for name in names}))


def _load(options: argparse.Namespace) -> Settings:
    """The settings that the file and the flags say. Raises ConfigError."""
    # A file that was used once is asked for from then on: where it is gone, the defaults are not what is wanted.
    options.config = config.found(options.config)
    flags = {name: getattr(options, name) for name in ("host", "port", "workers")}
    given = {name: value for name, value in flags.items() if value is not None}
    return config.with_server(config.load(options.config), given)


def _tell_key(key: LocalKey) -> None:
    if key.is_new:
        text = f"No [[keys]] are configured, so this key was made and is kept in {key.file}: {key.key}"
    else:
        text = f"The key is in {key.file}."
    _say(text, sys.stderr)


def _announce(url: str, configuration: Configuration) -> None:
    key = configuration.local_key
    if key is not None and key.is_new:
        _say(
            "Point an OpenAI SDK at the gateway:\n\n"
            "  from openai import OpenAI\n"
            f'  client = OpenAI(base_url="{url}/v1", api_key="{key.key}")\n',
            sys.stderr,
        )
    # What is not read at once is kept, and with a link whoever reads it later could sign in.
    is_read = sys.stderr is not None and sys.stderr.isatty()
    for line in dashboard.told(configuration.settings, url, Clock().now(), with_links=is_read):
        _say(line, sys.stderr)
    _tell_ready(url)


def _tell_ready(url: str) -> None:
    # The last thing said: who waits for this line finds the key told already.
    _say(f"listening on {url}", sys.stdout)


def _say(text: str, stream: TextIO | None) -> None:
    """Prints a text. That nobody can read it is no reason not to go on."""
    if stream is not None:
        with suppress(OSError):
            print(text, file=stream, flush=True)


def _flush() -> None:
    """Python flushes these when it ends, and fails where nobody reads them any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _stop_signal(*more: Signals) -> Iterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT (or one of `more`) sets; the second one ends the process."""
    stop = asyncio.Event()

    def on_signal(number: Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    with signals.handled(asyncio.get_running_loop(), on_signal, SIGTERM, SIGINT, *more):
        yield stop
