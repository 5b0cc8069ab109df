"""The pace of calls, and what they consumed."""

import asyncio
import time

import pytest
from asking import ASK, OK, ask, opened
from http_script import completion, endpoint, error, http

from webdancer.llm.pace import Pace
from webdancer.llm.protocol import Message, Sampling
from webdancer.records import Usage


async def test_pace_lets_units_through_evenly_in_turn() -> None:
    pace, order = Pace(600), []  # ten a second

    async def go(name: str, amount: float) -> None:
        await pace.wait(amount)
        order.append((name, round(time.monotonic() - started, 1)))

    started = time.monotonic()
    await asyncio.gather(go("a", 2), go("b", 1), go("c", 1))
    assert order == [("a", 0.0), ("b", 0.2), ("c", 0.3)]


async def test_corrections_move_the_next_one() -> None:
    pace = Pace(600)
    started = time.monotonic()
    await pace.wait(10)
    pace.correct(-8)
    await pace.wait()
    assert 0.19 <= time.monotonic() - started < 0.6
    pace.correct(3)
    await pace.wait()
    assert 0.59 <= time.monotonic() - started < 1.2


async def test_idle_time_is_not_saved_up() -> None:
    pace = Pace(600)
    await pace.wait()
    await asyncio.sleep(0.5)
    started = time.monotonic()
    for _ in range(4):
        await pace.wait()
    assert 0.29 <= time.monotonic() - started < 0.8


async def test_a_waiter_that_is_cancelled_lets_the_next_one_through() -> None:
    pace = Pace(600)
    await pace.wait(2)
    first, second = asyncio.create_task(pace.wait(100)), asyncio.create_task(pace.wait())
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.wait_for(second, 2)


async def test_tokens_per_minute_counts_what_calls_consumed() -> None:
    """600 tokens a second; a call of 150 that was expected to take about 320 lets the next one go after a quarter of a second."""
    body = completion()
    body["usage"] = {"prompt_tokens": 140, "completion_tokens": 10}
    async with endpoint([http(200, body)]) as server, opened(server, tokens_per_minute=36_000) as model:
        for _ in range(4):
            await model.chat(ASK, Sampling())
    gaps = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    assert all(0.2 <= gap < 0.45 for gap in gaps), gaps


async def test_large_prompts_wait_longer_before_anything_is_known() -> None:
    big = [Message("user", "x" * 4000)]  # about 1,000 tokens, and 300 for the answer
    async with endpoint([OK]) as server, opened(server, tokens_per_minute=180_000) as model:
        await asyncio.gather(*(model.chat(big, Sampling()) for _ in range(2)))
    assert 0.35 <= server.times[1] - server.times[0] < 1.0  # 1,320 of 3,000 a second


async def test_a_refused_call_has_consumed_nothing() -> None:
    async with endpoint([error(400, "no"), OK]) as server, opened(server, tokens_per_minute=6_000) as model:
        with pytest.raises(Exception, match="status 400"):
            await model.chat(ASK, Sampling())
        await asyncio.wait_for(model.chat(ASK, Sampling()), 1)  # it would take three seconds


async def test_a_server_that_asks_for_a_pause_is_left_alone_by_all_calls() -> None:
    refused = asyncio.Event()

    async def refuse(writer: asyncio.StreamWriter) -> None:
        writer.write(error(429, "slow", Retry_After="1"))
        await writer.drain()
        refused.set()

    async with endpoint([refuse, OK]) as server, opened(server) as model:
        first = asyncio.create_task(model.chat(ASK, Sampling()))
        await refused.wait()
        await asyncio.sleep(0.1)
        await asyncio.gather(first, *(model.chat(ASK, Sampling()) for _ in range(3)))
    assert all(at - server.times[0] >= 0.99 for at in server.times[1:])
    assert len(server.times) == 5


async def test_retry_after_in_milliseconds_is_kept_to() -> None:
    async with endpoint([error(429, "slow", retry_after_ms="300"), OK]) as server:
        await ask(server.url)
    assert 0.3 <= server.times[1] - server.times[0] < 0.9


# Usage.


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 2}}, 8),
        ({"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 4}, 8),  # DeepSeek
        ({"prompt_tokens_details": None}, 0),  # vLLM
        ({"prompt_tokens_details": {"audio_tokens": 0}}, 0),
    ],
)
async def test_cached_tokens_are_counted_and_reasoning_is_part_of_the_completion(
    usage: dict[str, object], cached: int
) -> None:
    body = completion()
    body["usage"] |= usage
    async with endpoint([http(200, body)]) as server:
        reply = await ask(server.url)
    assert reply.usage == Usage(prompt_tokens=12, cached_tokens=cached, completion_tokens=3, llm_calls=1)
    assert reply.usage_told


async def test_usage_that_is_missing_is_flagged_and_not_guessed() -> None:
    body = completion()
    del body["usage"]
    async with endpoint([http(200, body)]) as server:
        reply = await ask(server.url)
    assert (reply.usage, reply.usage_told) == (Usage(llm_calls=1), False)
