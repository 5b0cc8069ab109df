"""Progress for people: one rich bar a stage on stderr, plain lines where stderr is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

console = Console(stderr=True, highlight=False)
"""Where progress and messages go; results go to stdout."""


@contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar that moves by the numbers given to the function it yields."""
    num_done = 0
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(title, total=total)

        def advance(num: int) -> None:
            nonlocal num_done
            num_done += num
            progress.update(task, completed=num_done)

        yield advance
    console.print(f"  {title}: {num_done:,}" + (f" of {total:,}" if total is not None else ""))
