"""Remembers what tool calls brought, for the length of one training run.

The rollouts of a group ask the same things over and over, and on a fixed snapshot the same call brings the same observation.
Only successes are kept: a call that failed may well succeed the next time.
"""

import asyncio
import json
import time
from collections import OrderedDict
from dataclasses import dataclass

from pydantic import JsonValue

from webdancer.agent.tools import Toolbox, ToolResult


@dataclass(slots=True)
class ToolStats:
    """Counts since the start of the run."""

    num_calls: int = 0
    num_cached: int = 0
    """Calls answered from the cache, or by an identical call that was under way."""
    num_unsummarised: int = 0
    """Pages whose summary failed, so that passages of the page stood in for it."""
    busy_s: float = 0.0
    """Wall time in which at least one call was under way."""


class CachedToolbox(Toolbox):
    """A toolbox that makes each call once.

    Args:
        inner: makes the calls.
        max_entries: results kept; those not asked for longest go first.
    """

    def __init__(self, inner: Toolbox, *, max_entries: int = 50_000) -> None:
        self._inner, self._max_entries, self.extra = inner, max_entries, inner.extra
        self._results: OrderedDict[str, ToolResult] = OrderedDict()
        self._under_way: dict[str, asyncio.Event] = {}
        self._num_running = 0
        self._busy_since = 0.0
        self.stats = ToolStats()

    def schemas(self) -> tuple[dict[str, JsonValue], ...]:
        """What the model is told of the tools."""
        return self._inner.schemas()

    async def call(self, name: str, arguments: dict[str, JsonValue]) -> ToolResult:
        """What the call brings; an identical call that is under way is waited for."""
        self.stats.num_calls += 1
        key = json.dumps([name, arguments], sort_keys=True)
        if key in self._under_way:
            await self._under_way[key].wait()
        if key in self._results:
            self.stats.num_cached += 1
            self._results.move_to_end(key)
            return self._results[key]
        done = self._under_way.setdefault(key, asyncio.Event())
        try:
            result = await self._timed(name, arguments)
        finally:
            # Where a shared call failed, those who waited for it ask again side by side: the first to end clears the entry.
            self._under_way.pop(key, None)
            done.set()
        self.stats.num_unsummarised += result.num_unsummarised
        if result.error is None and result.num_unsummarised == 0:
            self._results[key] = result
            if len(self._results) > self._max_entries:
                self._results.popitem(last=False)
        return result

    async def _timed(self, name: str, arguments: dict[str, JsonValue]) -> ToolResult:
        if self._num_running == 0:
            self._busy_since = time.monotonic()
        self._num_running += 1
        try:
            return await self._inner.call(name, arguments)
        finally:
            self._num_running -= 1
            if self._num_running == 0:
                self.stats.busy_s += time.monotonic() - self._busy_since
