"""Bounded work: no more at once than allowed, and stopped at once even where it never waits."""

import asyncio

import pytest

from webdancer.errors import StoreError
from webdancer.synth.bounded import run_bounded


async def test_work_that_never_waits_can_be_stopped() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        done.append(item)
        if item == 5:
            task.cancel()

    task = asyncio.create_task(run_bounded(work, range(1000), concurrency=4))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done[:6] == [0, 1, 2, 3, 4, 5]
    assert len(done) <= 12


async def test_no_more_at_once_than_allowed_and_the_first_error_as_it_is() -> None:
    num_running, most = 0, 0

    async def work(item: int) -> None:
        nonlocal num_running, most
        num_running += 1
        most = max(most, num_running)
        await asyncio.sleep(0.001)
        num_running -= 1
        if item == 7:
            raise StoreError("full")

    with pytest.raises(StoreError, match="full"):
        await run_bounded(work, range(100), concurrency=3)
    assert most == 3
