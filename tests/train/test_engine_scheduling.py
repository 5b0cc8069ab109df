"""Who runs when: queueing, joining and leaving, cancelling, failing, rounds of the deterministic mode."""

import asyncio
import time

import pytest
from engine_toys import largest_gap, plain, some_ids, toy_engine, toy_model, until

from webdancer.errors import ContextFullError
from webdancer.train.engine import Generation, TorchEngine


async def test_more_episodes_than_rows_queue() -> None:
    model = toy_model()

    async def one(number: int) -> float:
        ids = some_ids(10 + number, seed=number)
        generation = await engine.generate(ids, plain(6, seed=number), session=str(number))
        engine.release(str(number))
        return largest_gap(model, ids, generation)

    async with toy_engine(model, max_batch=3) as engine:
        gaps = await asyncio.gather(*(one(number) for number in range(10)))
    assert max(gaps) < 1e-5
    assert engine.stats.num_requests == 10


async def test_when_all_rows_wait_for_tools_one_is_given_up() -> None:
    """Two rows; a and b never come back before c is served. The one longest idle (a) is prefilled again."""
    model = toy_model()
    ids = {name: some_ids(20, seed=n) for n, name in enumerate("abc")}
    async with toy_engine(model, max_batch=2, stop_ids=[]) as engine:
        first = {name: await engine.generate(ids[name], plain(2), session=name) for name in "abc"}
        b = await engine.generate(ids["b"] + first["b"].token_ids, plain(2), session="b")
        assert engine.stats.cached_tokens == 21  # b kept its row: 20 and the first of its two tokens
        again = ids["a"] + first["a"].token_ids
        a = await engine.generate(again, plain(2), session="a")
    assert engine.stats.cached_tokens == 21
    assert largest_gap(model, again, a) < 1e-5
    assert largest_gap(model, ids["b"] + first["b"].token_ids, b) < 1e-5


async def test_who_has_a_row_does_not_wait_behind_who_has_none() -> None:
    """One row, held by a, who asks again after b: a goes first, since b cannot start anyway."""
    order = []

    async def ask(session: str, seed: int) -> None:
        await engine.generate(some_ids(10, seed=seed), plain(3), session=session)
        order.append(session)

    async with toy_engine(toy_model(), max_batch=1) as engine:
        await ask("a", 1)
        await asyncio.gather(ask("b", 2), ask("a", 1))
    assert order == ["a", "a", "b"]


async def test_episodes_join_while_others_run() -> None:
    """200 tokens of a; b comes in the middle and is done long before: no step is run for b alone."""
    model = toy_model()
    async with toy_engine(model, stop_ids=[], max_draft=0) as engine:
        long = asyncio.create_task(engine.generate(some_ids(20, seed=1), plain(200), session="a"))
        await until(lambda: engine.stats.num_steps >= 50)
        await engine.generate(some_ids(20, seed=2), plain(20), session="b")
        assert not long.done()
        await long
    assert engine.stats.num_steps == 200


async def test_the_event_loop_goes_on_between_steps() -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with toy_engine(toy_model(), stop_ids=[]) as engine:
        ticking = asyncio.create_task(tick())
        await engine.generate(some_ids(20, seed=1), plain(100), session="a")
        ticking.cancel()
    assert turns >= 100


@pytest.mark.parametrize("num_steps", [0, 1, 20])
async def test_a_cancelled_request_leaves_the_batch(num_steps: int) -> None:
    model = toy_model()
    ids = some_ids(20, seed=1)
    async with toy_engine(model, max_batch=1, stop_ids=[], max_draft=0) as engine:
        task = asyncio.create_task(engine.generate(ids, plain(200), session="a"))
        await until(lambda: engine.stats.num_steps >= num_steps)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        steps = engine.stats.num_steps
        again = await engine.generate(ids, plain(5), session="a")  # the episode goes on
        engine.release("a")
        await engine.generate(some_ids(20, seed=2), plain(5), session="b")  # and its row is free
        assert engine.stats.num_steps == steps + 10
    assert largest_gap(model, ids, again) < 1e-5


async def test_release_cancels_what_is_under_way() -> None:
    async with toy_engine(toy_model(), stop_ids=[]) as engine:
        task = asyncio.create_task(engine.generate(some_ids(20, seed=1), plain(200), session="a"))
        await until(lambda: engine.stats.num_steps >= 3)
        engine.release("a")
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_donor_of_a_prompt_is_cancelled_while_others_wait_for_it() -> None:
    model = toy_model()
    ids = some_ids(120, seed=1)
    async with toy_engine(model, prefill_tokens=16) as engine:
        tasks = [asyncio.create_task(engine.generate(ids, plain(4, seed=n), session=str(n))) for n in range(4)]
        await until(lambda: engine.stats.prefilled_tokens >= 30)
        tasks[0].cancel()
        generations = await asyncio.gather(*tasks[1:])
    assert all(largest_gap(model, ids, generation) < 1e-5 for generation in generations)


async def test_a_full_context_is_told() -> None:
    async with toy_engine(toy_model(), max_context=64, stop_ids=[]) as engine:
        with pytest.raises(ContextFullError, match="got 64 tokens, expected less than 64"):
            await engine.generate(some_ids(64, seed=1), plain(1), session="a")
        last = await engine.generate(some_ids(63, seed=1), plain(10), session="a")
        cut = await engine.generate(some_ids(60, seed=1), plain(10), session="b")
    assert (len(last.token_ids), last.finish) == (1, "length")
    assert (len(cut.token_ids), cut.finish) == (4, "length")


async def test_a_failing_forward_fails_the_requests_and_the_engine_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model()
    ids = some_ids(20, seed=1)
    async with toy_engine(model, max_batch=2) as engine:
        monkeypatch.setattr(engine._decoder, "_eps", "no number")
        jobs = [engine.generate(ids, plain(5), session=str(n)) for n in range(4)]
        results = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 10)
        assert all(isinstance(result, RuntimeError) and "engine failed" in str(result) for result in results)
        monkeypatch.undo()
        generation = await engine.generate(ids, plain(5), session="0")
    assert largest_gap(model, ids, generation) < 1e-5


async def test_closing_fails_what_is_under_way_and_the_engine_can_be_entered_again() -> None:
    engine = toy_engine(toy_model(), stop_ids=[])
    async with engine:
        task = asyncio.create_task(engine.generate(some_ids(20, seed=1), plain(200), session="a"))
        await asyncio.sleep(0.02)
    with pytest.raises(RuntimeError, match="closed"):
        await task
    with pytest.raises(RuntimeError, match="async with"):
        await engine.generate(some_ids(20, seed=1), plain(2), session="a")
    async with engine:
        assert len((await engine.generate(some_ids(20, seed=1), plain(2), session="a")).token_ids) == 2


async def test_wrong_requests_are_refused() -> None:
    async with toy_engine(toy_model()) as engine:
        with pytest.raises(ValueError, match="got 0 tokens"):
            await engine.generate([], plain(2), session="a")
        with pytest.raises(ValueError, match="max_tokens 0"):
            await engine.generate([7], plain(0), session="a")
        first = asyncio.create_task(engine.generate([7, 8], plain(2), session="a"))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="another one of it is under way"):
            await engine.generate([7, 8], plain(2), session="a")
        await first


async def wave(engine: TorchEngine, delays: list[float]) -> list[list[Generation]]:
    """12 episodes of 3 turns; `delays` is how long their tools take, which must not matter. Lengths differ."""

    async def one(number: int) -> list[Generation]:
        session, ids, generations = f"e{number:02d}", some_ids(10 + 9 * (number // 3), seed=number // 3), []
        for turn in range(3 if number % 4 else 2):
            generation = await engine.generate(ids, plain(5 + number, seed=number * 10 + turn), session=session)
            generations.append(generation)
            ids = ids + generation.token_ids + some_ids(6, seed=turn)
            await asyncio.sleep(delays[(number + turn) % len(delays)])
        engine.release(session)
        return generations

    for number in range(12):
        engine.open(f"e{number:02d}")
    return await asyncio.gather(*(one(number) for number in range(12)))


async def test_deterministic_waves_are_equal_to_the_last_bit() -> None:
    """Different delays, another wave before it, more episodes than rows: the very same floats."""
    model = toy_model()
    async with toy_engine(model, max_batch=7, deterministic=True) as engine:
        first = await asyncio.wait_for(wave(engine, [0.0]), 20)
        second = await asyncio.wait_for(wave(engine, [0.02, 0.0, 0.01, 0.005, 0.03]), 20)
    async with toy_engine(model, max_batch=7, deterministic=True) as engine:
        third = await asyncio.wait_for(wave(engine, [0.003, 0.009]), 20)
    assert first == second == third


async def test_a_round_waits_for_all_open_episodes() -> None:
    async with toy_engine(toy_model(), deterministic=True) as engine:
        for session in "abc":
            engine.open(session)
        tasks = [asyncio.create_task(engine.generate(some_ids(9, seed=1), plain(2), session=name)) for name in "ab"]
        done, _ = await asyncio.wait(tasks, timeout=0.05)
        assert not done
        assert engine.stats.num_steps == 0
        engine.release("c")
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        with pytest.raises(ValueError, match="'d' was not opened"):
            await engine.generate(some_ids(9, seed=1), plain(2), session="d")
        with pytest.raises(ValueError, match="open already"):
            engine.open("a")


async def test_an_idle_engine_burns_no_time() -> None:
    async with toy_engine(toy_model()) as engine:
        await engine.generate(some_ids(9, seed=1), plain(2), session="a")
        before = time.process_time()
        await asyncio.sleep(0.2)
        assert time.process_time() - before < 0.1
