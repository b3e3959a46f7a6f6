"""What a run says on the terminal: one console, progress bars for work outside Lightning, tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .parallel.rank import global_rank

T = TypeVar("T")
#: no markup: captions, file names and messages may hold brackets, and are printed as they are
console = Console(highlight=False, markup=False, soft_wrap=True, quiet=global_rank() > 0)


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items under a progress bar; where there is no terminal, says only that it starts."""
    if not console.is_terminal:
        if total > 4:  # what takes no time need not be announced
            console.print(f"{what} …")
        yield from items
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)


def warn(text: str) -> None:
    """Prints what the user should know, though the run goes on."""
    console.print(text, style="yellow")


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*[_cell(value) for value in row])
    console.print(table)


def _cell(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def quiet_libraries() -> None:
    """Keeps libraries from saying what a run says better itself: advertisements, devices, progress of loading weights."""
    import logging
    import warnings

    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*isinstance\\(treespec, LeafSpec\\).*",  # a deprecation inside lightning
        ".*number of training batches .* is smaller than the logging interval.*",  # Meter logs, not Lightning
        ".*module\\(s\\) in eval mode at the start of training.*",  # frozen parts are, on purpose
        ".*does not have many workers.*",  # how many pay off is what `modalign data bench` is for
        ".*Checkpoint directory .* exists and is not empty.*",  # that is what continuing means
    ):
        warnings.filterwarnings("ignore", message=text)
