"""Identical tool calls are made once; what failed is asked again."""

import asyncio

from pydantic import JsonValue

from tests.fixtures import MemoryWeb, RuleModel, make_page
from webdancer.agent.tools import Toolbox, ToolResult
from webdancer.config import AgentSettings
from webdancer.records import ToolError
from webdancer.train.tool_cache import CachedToolbox


class Slow(Toolbox):
    """A toolbox that takes its time, and fails the first `num_failures` calls."""

    def __init__(self, *, num_failures: int = 0, num_unsummarised: int = 0) -> None:
        web = MemoryWeb({"http://w.example/velm": make_page("http://w.example/velm", "Velm", "Velm lies on the Orn.")})
        super().__init__(web, web, RuleModel(lambda _: ""), AgentSettings())
        self.calls: list[str] = []
        self._num_failures, self._num_unsummarised = num_failures, num_unsummarised

    async def call(self, name: str, arguments: dict[str, JsonValue]) -> ToolResult:
        self.calls.append(f"{name} {arguments}")
        await asyncio.sleep(0.02)
        if len(self.calls) <= self._num_failures:
            return ToolResult("Error: down", ToolError.TOOL_FAILED)
        result = await super().call(name, arguments)
        return result._replace(num_unsummarised=self._num_unsummarised)


async def test_the_same_call_is_made_once_whatever_the_order_of_its_arguments():
    inner = Slow()
    box = CachedToolbox(inner)
    first = await box.call("search", {"query": ["velm"], "filter_year": None})
    second = await box.call("search", {"filter_year": None, "query": ["velm"]})
    assert first == second
    assert "Velm" in first.observation
    assert len(inner.calls) == 1
    await box.call("search", {"query": ["velm", "orn"]})
    assert len(inner.calls) == 2
    assert (box.stats.num_calls, box.stats.num_cached) == (3, 1)
    assert 0.03 < box.stats.busy_s < 0.5
    assert box.schemas() == inner.schemas()


async def test_calls_under_way_are_shared():
    inner = Slow()
    box = CachedToolbox(inner)
    results = await asyncio.gather(*(box.call("search", {"query": ["velm"]}) for _ in range(8)))
    assert len(set(results)) == 1
    assert len(inner.calls) == 1
    assert box.stats.num_cached == 7


async def test_a_failure_is_asked_again():
    inner = Slow(num_failures=1)
    box = CachedToolbox(inner)
    assert (await box.call("search", {"query": ["velm"]})).error is ToolError.TOOL_FAILED
    assert (await box.call("search", {"query": ["velm"]})).error is None
    assert len(inner.calls) == 2


async def test_those_who_waited_for_a_call_that_failed_ask_again_side_by_side():
    inner = Slow(num_failures=1)
    box = CachedToolbox(inner)
    results = await asyncio.gather(*(box.call("search", {"query": ["velm"]}) for _ in range(4)))
    assert [result.error for result in results] == [ToolError.TOOL_FAILED, None, None, None]
    assert len(inner.calls) == 4


async def test_a_page_without_a_summary_is_not_remembered():
    inner = Slow(num_unsummarised=1)
    box = CachedToolbox(inner)
    for _ in range(2):
        await box.call("search", {"query": ["velm"]})
    assert len(inner.calls) == 2
    assert box.stats.num_unsummarised == 2


async def test_what_was_not_asked_for_longest_goes_first():
    inner = Slow()
    box = CachedToolbox(inner, max_entries=2)
    for word in ("velm", "orn", "velm", "tarn", "velm", "orn"):
        await box.call("search", {"query": [word]})
    assert [call.split("'")[3] for call in inner.calls] == ["velm", "orn", "tarn", "orn"]
