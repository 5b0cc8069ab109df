"""Runs work on many items at once, but on not too many."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from webdancer.errors import BudgetError

T = TypeVar("T")


async def run_bounded(work: Callable[[T], Awaitable[None]], items: Iterable[T], *, concurrency: int) -> None:
    """Await `work(item)` for every item, at most `concurrency` at once, started in the items' order.

    The first error cancels the rest and is raised as it is, so that a caller sees a StoreError, not a group of one. But where
    the budget is spent, calls under way may end, since they are paid for, and no other begins. Between two items the event
    loop gets its turn, so that Ctrl-C is heard also where the work never waits for anything.
    """
    limit = asyncio.Semaphore(concurrency)
    spent: list[BudgetError] = []

    async def run_one(item: T) -> None:
        async with limit:
            await asyncio.sleep(0)
            if spent:
                return
            try:
                await work(item)
            except BudgetError as error:
                spent.append(error)

    try:
        async with asyncio.TaskGroup() as tasks:
            for item in items:
                tasks.create_task(run_one(item))
    except* Exception as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    if spent:
        raise spent[0]
