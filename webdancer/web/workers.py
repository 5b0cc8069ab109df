"""Extraction in worker processes: it uses the other cores, and a page that hangs or kills its worker costs that page only.

A worker is this module run as a program. It reads pickled jobs from its standard input, writes pickled results to its
standard output, and ends when its input does, so that it never outlives the crawler.
"""

import asyncio
import contextlib
import fcntl
import os
import pickle
import resource
import struct
import sys
from collections.abc import Sequence
from enum import StrEnum
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from webdancer.web.extract import Extracted, extract

_LENGTH = struct.Struct("<I")
_PIPE_BYTES = 4_000_000
_WIDE_PIPE_BYTES = 1 << 20
"""Most pages fit into such a pipe at once, which saves turns of the event loop; Linux gives 64 KiB unasked."""
_MAX_WORKER_BYTES = 4_000_000_000
"""Address space of one worker."""


class ExtractProblem(StrEnum):
    """Why the text of a page could not be had."""

    TIMEOUT = "extract_timeout"
    CRASHED = "extract_crashed"


class Job(NamedTuple):
    """The arguments of `extract`."""

    body: bytes
    url: str
    content_type: str | None


class ExtractPool:
    """A few worker processes. Used as an async context manager.

    Args:
        num_workers: processes; None for one per core, at most four.
        timeout_s: seconds for one page, after which its worker is killed and replaced.
    """

    def __init__(self, *, num_workers: int | None = None, timeout_s: float = 30.0) -> None:
        self._num_workers = num_workers or min(4, os.cpu_count() or 1)
        self._timeout_s = timeout_s
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._workers: list[_Worker] = []

    async def __aenter__(self) -> Self:
        for _ in range(self._num_workers):
            worker = _Worker()
            self._workers.append(worker)
            self._idle.put_nowait(worker)
            await worker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def extract(self, job: Job) -> Extracted | ExtractProblem:
        """Run `extract` in a worker."""
        worker = await self._idle.get()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await worker.run(job)
        except TimeoutError:
            return ExtractProblem.TIMEOUT
        except (OSError, asyncio.IncompleteReadError):
            return ExtractProblem.CRASHED
        finally:
            if worker.busy:  # it hangs, died, or its caller was cancelled: its pipes are in an unknown state
                await worker.stop()
            self._idle.put_nowait(worker)


class _Worker:
    """One process. It is started again when it is next used after `stop`."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self.busy = False

    async def start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # modules of the folder that the user happens to be in are not ours
            "-m",
            "webdancer.web.workers",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_PIPE_BYTES,
            start_new_session=True,  # Ctrl-C in the terminal is for the crawler, which then ends its workers
        )
        return self._process

    async def run(self, job: Job) -> Extracted | ExtractProblem:
        self.busy = True
        process = self._process or await self.start()
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise BrokenPipeError("a worker without pipes")
        stdin.writelines(_packed(job))
        await stdin.drain()
        (length,) = _LENGTH.unpack(await stdout.readexactly(_LENGTH.size))
        answer: Extracted | ExtractProblem = pickle.loads(await stdout.readexactly(length))
        self.busy = False
        return answer

    async def stop(self) -> None:
        process, self._process, self.busy = self._process, None, False
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


def _packed(value: object) -> Sequence[bytes]:
    data = pickle.dumps(value, protocol=5)
    return _LENGTH.pack(len(data)), data


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer jobs until the input ends."""
    while len(header := requests.read(_LENGTH.size)) == _LENGTH.size:
        job: Job = pickle.loads(requests.read(_LENGTH.unpack(header)[0]))
        answer: Extracted | ExtractProblem
        try:
            answer = extract(job.body, url=job.url, content_type=job.content_type)
        except (MemoryError, RecursionError):
            answer = ExtractProblem.CRASHED
        answers.writelines(_packed(answer))
        answers.flush()


def main() -> None:
    """Run as a worker."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_WORKER_BYTES, _MAX_WORKER_BYTES))
    for pipe in (sys.stdin, sys.stdout):
        with contextlib.suppress(OSError):  # a user has only so many bytes of pipes; it works without, more slowly
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _WIDE_PIPE_BYTES)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not mix with the answers
    with contextlib.suppress(BrokenPipeError):  # the crawler was killed
        _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
