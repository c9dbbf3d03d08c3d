"""`gateway prune`: deletes old spans beside a running gateway, or without one."""

import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.errors import GatewayError, StoreError
from gateway.store.prune import Keep, forecast, number, prune

_PAUSE_S = 0.02


def run(path: Path, keep: Keep, *, dry: bool = False) -> int:
    """Tells how many were deleted, and how large the file was and is; `dry`: how many would be, and deletes none.

    Raises GatewayError.
    """
    if keep == Keep():
        raise GatewayError("Say what is to be deleted: --older-than 30d, --max-size 10GB, or [store] prune_….")
    if not path.exists():
        raise StoreError(f"There is no database {path}: name its configuration with --config.")
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    now, before, pruned = datetime.now(UTC), path.stat().st_size, 0
    try:
        if dry:
            found = forecast(path, keep, now)
            told = (
                f"{'About ' if keep.size is not None else ''}{found.spans:,} spans would be deleted, about "
                f"{found.size / 1e6:,.1f} MB of the {before / 1e6:,.1f} MB that the file has. Nothing was deleted."
            )
            console.print(told, highlight=False, soft_wrap=True)
            return 0
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("deleting", total=number(path, keep, now) or None)
            for deleted in prune(path, keep, now):
                pruned += deleted
                progress.update(task, completed=pruned, description="deleting" if deleted else "giving space back")
                # For the calls that wait.
                time.sleep(_PAUSE_S)
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} cannot be pruned: {error}.") from error
    told = f"{pruned:,} spans deleted; the file had {before / 1e6:,.1f} MB and has {path.stat().st_size / 1e6:,.1f}."
    console.print(told, highlight=False, soft_wrap=True)
    return 0
