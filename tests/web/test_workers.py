"""Extraction in worker processes: results, a worker that hangs, a worker that dies."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from webdancer.web.extract import Extracted, extract
from webdancer.web.workers import ExtractPool, ExtractProblem, Job

JOB = Job(
    b"<html><title>T</title><body><main><h1>T</h1><p>Some words that are text.</p><a href=b>b</a></main>",
    "http://h.example/a",
    "text/html",
)


async def test_a_worker_extracts_as_the_function_does() -> None:
    big = Job(JOB.body + b"<p>more</p>" * 300_000, JOB.url, JOB.content_type)
    async with ExtractPool(num_workers=2) as pool:
        answers = await asyncio.gather(*(pool.extract(job) for job in [JOB, big] * 3))
    expected = [extract(job.body, url=job.url, content_type=job.content_type) for job in (JOB, big)]
    assert answers == expected * 3
    assert expected[0].links == ("http://h.example/b",)


async def test_modules_in_the_current_folder_are_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    async with ExtractPool(num_workers=1) as pool:
        assert isinstance(await pool.extract(JOB), Extracted)


async def test_a_page_that_takes_too_long_costs_that_page_only() -> None:
    async with ExtractPool(num_workers=1, timeout_s=0.001) as pool:
        assert await pool.extract(JOB) is ExtractProblem.TIMEOUT
        pool._timeout_s = 30.0
        assert isinstance(await pool.extract(JOB), Extracted)


async def test_a_worker_that_dies_costs_that_page_only() -> None:
    async with ExtractPool(num_workers=1) as pool:
        assert isinstance(await pool.extract(JOB), Extracted)
        process = pool._workers[0]._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        assert await pool.extract(JOB) is ExtractProblem.CRASHED
        assert isinstance(await pool.extract(JOB), Extracted)


async def test_no_worker_is_left() -> None:
    async with ExtractPool(num_workers=2) as pool:
        processes = [worker._process for worker in pool._workers]
    assert [process is not None and process.returncode for process in processes] == [-9, -9]
