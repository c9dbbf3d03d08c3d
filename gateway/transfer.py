"""Export of spans to a file, and import of such a file: JSON lines, CSV or Parquet, span by span."""

import asyncio
import csv
import io
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from gateway.core import content, prices
from gateway.core.complete import Draft, complete
from gateway.core.filters import BETWEEN, Condition, both
from gateway.core.jsontext import dump, is_unicode, parse, parse_object, parse_or_none
from gateway.core.reading import BOOL_COLUMNS, JSON_COLUMNS, stored_time
from gateway.core.records import cells, record
from gateway.core.span import validate
from gateway.errors import GatewayError, RefusedRequest, StoreFull
from gateway.show import condition, organization, reader
from gateway.store import conditions, lists, queries
from gateway.store.conditions import Sql
from gateway.store.rows import RECORD_COLUMNS
from gateway.store.store import Store

FORMATS = ("jsonl", "csv", "parquet")
_AT_ONCE = 500
_QUEUE_BYTES = 64 * 1024 * 1024
# A group of rows in Parquet: the file's index tells of each, and is kept until its end.
_GROUP_BYTES = 32 * 1024 * 1024
# Spans of one transaction; and how often it is looked for room for the next.
_TOGETHER = 100
_ROOM_EVERY_S = 0.01
_MISTAKES_TOLD = 20


@dataclass(frozen=True, slots=True)
class Export:
    """Which spans go where. `file` None: to standard output. `format` None: as the file is named, else JSON lines."""

    path: Path
    file: Path | None
    format: str | None = None
    organization: str | None = None
    where: Sequence[str] = ()
    since: datetime | None = None


def export(options: Export) -> int:
    """Writes spans in the order in which they came; those of calls that still run are left out.

    Raises GatewayError.
    """
    found = [condition(text) for text in options.where]
    if options.since is not None:
        found.append(Condition("timestamp", BETWEEN, (stored_time(options.since), None)))
    where = conditions.of_spans(both(*found))
    try:
        with reader(options.path) as db:
            if options.file is not None and options.file.exists() and options.file.samefile(options.path):
                raise GatewayError(f"{options.file} is the database itself: name another file.")
            organization_id = organization(db, options.organization)
            _write(db, organization_id, where, options)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise GatewayError(f"{options.file or 'standard output'}: {error.strerror or error}.") from None
    return 0


def _write(db: sqlite3.Connection, organization_id: str, where: Sql, options: Export) -> None:
    # What comes meanwhile is left out: an export has an end, however fast that is.
    end = queries.take_seq(db)
    total = lists.number(db, organization_id, where)
    with ExitStack() as stack:
        file = None if options.file is None else stack.enter_context(_once_whole(options.file))
        write = stack.enter_context(_writer(file, options.format or _format_of(options.file)))
        # On a terminal it would stand between the lines.
        progress = stack.enter_context(_progress(hidden=file is None and sys.stdout.isatty()))
        task = progress.add_task("spans", total=total)
        last = 0
        while ids := [one for one in lists.behind(db, organization_id, where, last, _AT_ONCE) if one <= end]:
            write([record(row) for row in lists.rows(db, ids, RECORD_COLUMNS)])
            progress.advance(task, len(ids))
            last = ids[-1]


@contextmanager
def _once_whole(file: Path) -> Iterator[Path]:
    """Where to write what is to be this file once it is whole: half a file is not taken for one, and the one that was
    there stays until then."""
    if file.exists() and not file.is_file():
        yield file
        return
    whole = file.resolve()
    part = whole.with_name(f"{whole.name}.part")
    try:
        yield part
        if whole.exists():
            shutil.copymode(whole, part)
        part.replace(whole)
    finally:
        part.unlink(missing_ok=True)


Write = Callable[[Sequence[Mapping[str, Any]]], None]


def _writer(file: Path | None, name: str) -> AbstractContextManager[Write]:
    if name == "parquet":
        if file is None:
            raise GatewayError("Parquet is written to a file: name one.")
        return _Parquet(file)
    return _Text(file, name)


def _format_of(file: Path | None) -> str:
    ending = "" if file is None else file.suffix.removeprefix(".").lower()
    return ending if ending in FORMATS else "jsonl"


class _Text(AbstractContextManager[Write]):
    """JSON lines without what is null, or CSV with JSON in its cells where a value is no text."""

    def __init__(self, file: Path | None, name: str) -> None:
        self._file = file
        self._name = name

    def __enter__(self) -> Write:
        self._out: IO[str] = sys.stdout if self._file is None else self._file.open("w", encoding="utf-8", newline="")
        if self._name == "jsonl":
            return self._lines
        self._csv = csv.writer(self._out)
        self._csv.writerow(RECORD_COLUMNS)
        return self._cells

    def _lines(self, records: Sequence[Mapping[str, Any]]) -> None:
        for one in records:
            self._out.write(dump({name: value for name, value in one.items() if value is not None}) + "\n")

    def _cells(self, records: Sequence[Mapping[str, Any]]) -> None:
        for one in records:
            self._csv.writerow(cells(RECORD_COLUMNS, one))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            self._out.close()
        elif kind is None:
            self._out.flush()


def _unquoted(name: str, cell: str) -> str | None:
    if not cell:
        return None
    told = parse_or_none(cell) if cell.startswith('"') and name not in JSON_COLUMNS else None
    return told if isinstance(told, str) else cell


class _Parquet(AbstractContextManager[Write]):
    """Columns of numbers as numbers, all others as text; what is no text there is JSON."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Write:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise GatewayError("Parquet needs pyarrow: pip install pyarrow.") from None
        kinds = {"REAL": arrow.float64(), "INTEGER": arrow.int64()}
        self._schema = arrow.schema(
            [(name, kinds.get(_KINDS.get(name, ""), arrow.string())) for name in RECORD_COLUMNS]
        )
        self._arrow = arrow
        self._waiting: list[Any] = []
        self._out = parquet.ParquetWriter(self._file, self._schema)
        return self._rows

    def _rows(self, records: Sequence[Mapping[str, Any]]) -> None:
        rows = [{name: _column(name, one[name]) for name in RECORD_COLUMNS} for one in records]
        self._waiting.append(self._arrow.Table.from_pylist(rows, schema=self._schema))
        if sum(table.nbytes for table in self._waiting) >= _GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        table = self._arrow.concat_tables(self._waiting)
        self._waiting.clear()
        self._out.write_table(table, row_group_size=max(1, table.num_rows))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._waiting:
                self._write_group()
        finally:
            self._out.close()


_KINDS = {
    **dict.fromkeys(
        (
            *("latency", "time_to_first_token", "tokens_per_second", "routing_time", "temperature", "top_p", "cost"),
            *("frequency_penalty", "presence_penalty", "prompt_unit_price", "completion_unit_price"),
        ),
        "REAL",
    ),
    **dict.fromkeys(
        (
            *("status_code", "prompt_tokens", "completion_tokens", "total_request_tokens", "max_tokens"),
            *("prompt_cache_hit_tokens", "prompt_cache_creation_tokens", "reasoning_tokens"),
        ),
        "INTEGER",
    ),
}


def _column(name: str, value: Any) -> Any:
    if value is None or name in _KINDS:
        return value
    return value if isinstance(value, str) and name not in JSON_COLUMNS else dump(value)


# Import

# A record, or what is wrong with it, with its place in the file.
Placed = tuple[str, Mapping[str, Any] | str]


def bring_in(path: Path, files: Sequence[Path], organization_id: str | None) -> int:
    """Stores the spans of such files; those whose ids are known already are passed over. Exit status 1 where some could
    not be stored: these are told. Raises GatewayError."""
    return asyncio.run(_bring_in(path, files, organization_id))


async def _bring_in(path: Path, files: Sequence[Path], organization_id: str | None) -> int:
    store = Store(path, synchronous="normal", queue_bytes=_QUEUE_BYTES)
    console = Console(stderr=True)
    new = known = wrong = 0
    try:
        await store.recover()
        for file in files:
            total = file.stat().st_size if file.exists() else None
            with _progress() as progress:
                task = progress.add_task(file.name, total=total)
                for batch, read in _batches(_records(file)):
                    for place, end in await _stored(store, batch, organization_id):
                        new += end is True
                        known += end is False
                        wrong += isinstance(end, str)
                        if isinstance(end, str) and wrong <= _MISTAKES_TOLD:
                            told = f"{file}, {place}: {end}"
                            progress.console.print(told, markup=False, highlight=False, soft_wrap=True)
                    progress.update(task, completed=read)
    finally:
        await store.close()
        console.print(f"{new:,} spans stored, {known:,} known already, {wrong:,} wrong.", highlight=False)
    return 1 if wrong else 0


async def _stored(store: Store, batch: Sequence[Placed], organization_id: str | None) -> list[tuple[str, bool | str]]:
    """For each record whether it is new, or what is wrong with it, after their commits."""
    found: list[tuple[str, bool | str]] = []
    for at in range(0, len(batch), _TOGETHER):
        part = batch[at : at + _TOGETHER]
        ends = [await _inserted(store, record, organization_id) for _, record in part]
        for (place, _), end in zip(part, ends, strict=True):
            try:
                found.append((place, end if isinstance(end, str) else await end))
            except sqlite3.Error as error:
                found.append((place, str(error)))
    return found


async def _inserted(
    store: Store, record: Mapping[str, Any] | str, organization_id: str | None
) -> "asyncio.Future[bool] | str":
    """The end of its way into the store, or what is wrong with it."""
    if isinstance(record, str):
        return record
    fields = {name: value for name, value in record.items() if value is not None}
    picos, extras = fields.pop("cost_picos", None), fields.pop("extras", None)
    fields |= {"organization_id": organization_id or fields.get("organization_id") or "default"}
    if missing := [name for name in ("unique_id", "environment", "timestamp") if not fields.get(name)]:
        return f"{', '.join(missing)}: missing."
    if not is_unicode(str(fields["organization_id"])):
        return "organization_id: must be text without lone surrogates."
    try:
        draft = Draft(validate({**(extras if isinstance(extras, dict) else {}), "model": "", **fields}))
        draft.cost_picos = _picos(picos, draft.span.cost)
        if deep := content.too_deep(draft.span, draft.texts):
            return f"{', '.join(deep)}: nested deeper than {content.DEPTH_AT_MOST} levels."
        complete(draft, datetime.now(UTC))
    except (RefusedRequest, ValueError, TypeError) as error:
        return str(error)
    while True:
        try:
            return store.insert(draft, linked=True)
        except StoreFull:
            await asyncio.sleep(_ROOM_EVERY_S)


def _picos(told: Any, cost: float | None) -> int | float | None:
    """A cost in units of 1e-12 USD as the store has it: beyond 64 bits no whole number. Raises ValueError."""
    number = parse_or_none(told) if isinstance(told, str) and told else told
    if number is None or number == "":
        number = None if cost is None else prices.picos(prices.decimal(cost))
    if number is None or (type(number) is int and abs(number) < 2**63):
        return number
    if type(number) in (int, float) and 2**63 <= abs(number) <= sys.float_info.max:
        return float(number)
    raise ValueError("cost_picos: must be a whole number.")


def _batches(records: Iterator[tuple[Placed, int]]) -> Iterator[tuple[list[Placed], int]]:
    batch: list[Placed] = []
    read = 0
    try:
        for placed, read in records:
            batch.append(placed)
            if len(batch) == _AT_ONCE:
                yield batch, read
                batch = []
    except GatewayError:
        # What was read of the file before it could not be read any further.
        if batch:
            yield batch, read
        raise
    if batch:
        yield batch, read


def _records(file: Path) -> Iterator[tuple[Placed, int]]:
    """The records of a file, or what is wrong with one, with their places; and how far it is read, in bytes."""
    try:
        name = _format_of(file)
        if name == "parquet":
            yield from _rows_of_parquet(file)
            return
        with file.open("rb") as raw:
            begin = raw.peek(4)
            if begin.startswith(b"\x1f\x8b"):
                raise GatewayError(f"{file}: is compressed with gzip: unpack it first.")
            if begin.startswith(b"PAR1"):
                raise GatewayError(f"{file}: is Parquet: its name must end in .parquet.")
            yield from _rows_of_csv(raw) if name == "csv" else _lines(raw)
    except (OSError, ValueError, csv.Error) as error:
        raise GatewayError(f"{file}: {getattr(error, 'strerror', None) or str(error).rstrip('.')}.") from None


def _lines(raw: IO[bytes]) -> Iterator[tuple[Placed, int]]:
    read = 0
    for number, line in enumerate(raw, 1):
        read += len(line)
        if line.strip():
            yield (f"line {number}", _from_line(line)), read


def _from_line(line: bytes) -> Mapping[str, Any] | str:
    try:
        return parse_object(line)
    except RefusedRequest as error:
        return str(error)


def _rows_of_csv(raw: IO[bytes]) -> Iterator[tuple[Placed, int]]:
    csv.field_size_limit(sys.maxsize)
    # Spreadsheets put a byte order mark before it.
    with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        names = next(reader, [])
        while True:
            place = f"line {reader.line_num + 1}"
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield (place, f"is no CSV: {error}."), raw.tell()
                continue
            if len(row) == len(names):
                yield (
                    (place, _from_text({name: _unquoted(name, cell) for name, cell in zip(names, row, strict=True)})),
                    raw.tell(),
                )
            elif row:
                yield (place, f"has {len(row)} cells where the first line has {len(names)}."), raw.tell()


def _from_text(row: Mapping[str, str | None]) -> dict[str, Any] | str:
    """Texts as values, JSON where it stands for one; or what is wrong with one."""
    found: dict[str, Any] = {}
    for name, text in row.items():
        if name in JSON_COLUMNS or name in BOOL_COLUMNS or name in _KINDS:
            try:
                found[name] = parse(text) if text else None
            except RefusedRequest:
                return f"{name}: must be JSON."
        else:
            found[name] = text
    return found


def _rows_of_parquet(file: Path) -> Iterator[tuple[Placed, int]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise GatewayError("Parquet needs pyarrow: pip install pyarrow.") from None
    number = 0
    with parquet.ParquetFile(file) as opened:
        size = file.stat().st_size
        for batch in opened.iter_batches(_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                texts = _from_text({name: value for name, value in row.items() if isinstance(value, str)})
                record = texts if isinstance(texts, str) else {**row, **texts}
                yield (f"row {number}", record), size * number // opened.metadata.num_rows


def _progress(*, hidden: bool = False) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=hidden or not console.is_terminal)
