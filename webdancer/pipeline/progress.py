"""Progress for people: one rich bar a stage on stderr, plain lines where stderr is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from webdancer.pipeline.processes import is_first_process

console = Console(stderr=True, highlight=False, quiet=not is_first_process())
"""Where progress and messages go; results go to stdout. Of several processes only the first speaks."""


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


@contextmanager
def step_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar for a trainer: the function it yields is given the step, the number of steps, and the latest figures."""
    last = (0, 0, "nothing was left to do")
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(title, total=None, figures="")

        def show(step: int, num_steps: int, figures: str) -> None:
            nonlocal last
            last = (step, num_steps, figures)
            progress.update(task, completed=step, total=num_steps, figures=figures)

        yield show
    console.print(f"  {title}: {last[0]:,} of {last[1]:,}, {last[2]}" if last[1] else f"  {title}: {last[2]}")
