"""What came of pages that were asked for, shared by all who ask: a page is had once and remembered for a while, a failure too."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from webdancer.records import Page
from webdancer.web.protocol import ToolFailure

_now_s = time.monotonic
_MAX_CHARS = 64_000_000
_CHARS_PER_ENTRY = 500
"""What an entry costs besides the text of its page."""

Outcome = Page | ToolFailure
"""A failure is a value here, so that it can be remembered."""


class PageMemory:
    """Pages and failures by URL; the least recently used go first where their texts are too much.

    Args:
        max_age_s: seconds for which an outcome is remembered; 0: not at all.
    """

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._entries: OrderedDict[str, tuple[float, Outcome]] = OrderedDict()
        self._num_chars = 0
        self._under_way: dict[str, asyncio.Task[Outcome]] = {}

    async def read(self, url: str, make: Callable[[], Awaitable[Outcome]]) -> Page:
        """The page under a URL: remembered, or from the call of `make` that is under way, or from a new one.

        A caller that gives up does not stop `make`: others may wait for it, and its outcome is remembered. What `make`
        raises reaches all who wait and is not remembered.

        Raises:
            ToolFailure: the failure that `make` returned.
        """
        outcome = self.get(url)
        if outcome is None:
            if url not in self._under_way:
                task = asyncio.create_task(self._make(url, make))
                self._under_way[url] = task
                task.add_done_callback(lambda _: self._under_way.pop(url))
            outcome = await asyncio.shield(self._under_way[url])
        if isinstance(outcome, Page):
            return outcome
        raise type(outcome)(str(outcome))  # each caller's own: a raised error gathers the frames that it passed

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def get(self, url: str) -> Outcome | None:
        """What is remembered of a URL."""
        entry = self._entries.get(url)
        if entry is None:
            return None
        put_s, outcome = entry
        if _now_s() - put_s >= self._max_age_s:
            self._drop(url)
            return None
        self._entries.move_to_end(url)
        return outcome

    async def _make(self, url: str, make: Callable[[], Awaitable[Outcome]]) -> Outcome:
        outcome = await make()
        if isinstance(outcome, Page):
            self._put(outcome.url, outcome)  # after redirects that is another one
        self._put(url, outcome)
        return outcome

    def _put(self, url: str, outcome: Outcome) -> None:
        if self._max_age_s <= 0:
            return
        self._drop(url)
        self._entries[url] = (_now_s(), outcome)
        self._num_chars += _cost(outcome)
        while self._num_chars > _MAX_CHARS:
            self._drop(next(iter(self._entries)))

    def _drop(self, url: str) -> None:
        entry = self._entries.pop(url, None)
        if entry is not None:
            self._num_chars -= _cost(entry[1])


def _cost(outcome: Outcome) -> int:
    return _CHARS_PER_ENTRY + (len(outcome.text) + sum(map(len, outcome.links)) if isinstance(outcome, Page) else 0)
