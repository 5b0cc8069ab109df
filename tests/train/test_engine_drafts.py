"""Speculative decoding is exact: what is sampled, and its log-probabilities, are those of decoding token by token."""

import asyncio
from dataclasses import replace

import pytest
import torch
from engine_toys import forward_logprobs, largest_gap, plain, some_ids, toy_engine, toy_model, until
from transformers import PreTrainedModel

from webdancer.train.engine import EngineStats, Generation, TokenSampling, TorchEngine

PHRASES = [some_ids(9, seed=500 + number) for number in range(4)]


def phrases(num: int, seed: int) -> list[int]:
    """A text of phrases that come again and again, with a word of its own between them."""
    words = some_ids(num, seed)
    return [id_ for word in words for id_ in (*PHRASES[word % len(PHRASES)], word)]


@pytest.fixture(scope="module")
def trained() -> PreTrainedModel:
    """A toy that has learnt to write phrases: sure within one, unsure between them."""
    model = toy_model(num_hidden_layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(150):
        batch = torch.tensor([phrases(5, seed=16 * step + row) for row in range(16)])
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.train(False)
    return model


async def play(engine: TorchEngine, sampling: TokenSampling, num_turns: int = 3) -> list[Generation]:
    """12 episodes over 8 rows, of different lengths, with observations that repeat what was read."""

    async def one(number: int) -> list[Generation]:
        ids, generations = phrases(2 + number % 3, seed=number // 3), []
        for turn in range(num_turns):
            own = replace(sampling, seed=sampling.seed + 100 * number + turn, max_tokens=10 + 3 * number)
            generation = await engine.generate(ids, own, session=str(number))
            generations.append(generation)
            ids = ids + generation.token_ids + phrases(1 + number % 2, seed=turn)
        engine.release(str(number))
        return generations

    return [turn for turns in await asyncio.gather(*map(one, range(12))) for turn in turns]


def assert_same(generations: list[Generation], expected: list[Generation]) -> None:
    assert [(turn.token_ids, turn.finish) for turn in generations] == [(t.token_ids, t.finish) for t in expected]
    for turn, other in zip(generations, expected, strict=True):
        assert turn.logprobs == pytest.approx(other.logprobs, abs=1e-4)


async def both(model: PreTrainedModel, sampling: TokenSampling, stops: list[int]) -> tuple[EngineStats, EngineStats]:
    """Play with and without drafts; the totals."""
    turns, stats = [], []
    for max_draft in (5, 0):
        async with toy_engine(model, max_draft=max_draft, stop_ids=stops) as engine:
            turns.append(await play(engine, sampling))
        stats.append(engine.stats)
    assert_same(*turns)
    assert stats[0].sampled_tokens == stats[1].sampled_tokens
    return stats[0], stats[1]


@pytest.mark.parametrize(
    "sampling",
    [plain(), plain(seed=9000), plain(temperature=0.0), plain(temperature=0.6), plain(top_p=0.9)],
    ids=["plain", "another seed", "greedy", "sharp", "nucleus"],
)
async def test_the_same_tokens_in_fewer_steps(trained: PreTrainedModel, sampling: TokenSampling) -> None:
    drafted, undrafted = await both(trained, sampling, stops=[PHRASES[0][4]])  # a stop in the middle of a phrase
    assert drafted.num_steps < 0.8 * undrafted.num_steps
    assert 0.5 * drafted.drafted_tokens < drafted.accepted_tokens < drafted.drafted_tokens
    assert (undrafted.drafted_tokens, undrafted.accepted_tokens) == (0, 0)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
async def test_the_same_tokens_where_the_model_is_random(family: str) -> None:
    """Greedy, it falls into loops; the drafts of sampled text seldom hold."""
    model = toy_model(family)
    drafted, undrafted = await both(model, plain(temperature=0.0), stops=[])
    assert drafted.accepted_tokens > 0
    assert drafted.num_steps < undrafted.num_steps
    await both(model, plain(temperature=0.8), stops=[])


async def test_logprobs_equal_a_forward_pass(trained: PreTrainedModel) -> None:
    async with toy_engine(trained, stop_ids=[]) as engine:
        for number in range(12):
            ids = phrases(3, seed=number)
            generation = await engine.generate(ids, plain(40, seed=number), session=str(number))
            assert largest_gap(trained, ids, generation) < 1e-4
            engine.release(str(number))
    assert engine.stats.accepted_tokens > 100


async def test_greedy_is_the_likeliest_at_every_place(trained: PreTrainedModel) -> None:
    ids = phrases(4, seed=1)
    async with toy_engine(trained, stop_ids=[]) as engine:
        generation = await engine.generate(ids, plain(50, temperature=0.0), session="a")
    expected = forward_logprobs(trained, ids + generation.token_ids)
    assert generation.token_ids == expected[len(ids) - 1 : -1].argmax(-1).tolist()
    assert engine.stats.accepted_tokens > 10


async def test_limits_cut_drafts(trained: PreTrainedModel) -> None:
    """Turns of every length up to 12, and a context that ends 7 tokens behind the prompt."""
    ids = phrases(4, seed=1)
    async with toy_engine(trained, stop_ids=[], max_context=64) as engine:
        whole = await engine.generate(ids, plain(12, temperature=0.0), session="a")
        for length in range(1, 13):
            turn = await engine.generate(ids, plain(length, temperature=0.0), session="a")
            assert (turn.token_ids, turn.finish) == (whole.token_ids[:length], "length")
        long = (ids + phrases(2, seed=2))[:57]
        last = await engine.generate(long, plain(50, temperature=0.0), session="b")
    assert (len(last.token_ids), last.finish) == (7, "length")
    assert engine.stats.accepted_tokens > 0


async def test_a_cancelled_turn_leaves_no_draft_behind(trained: PreTrainedModel) -> None:
    """The next turn of the episode is the one that an engine without drafts gives."""
    ids = phrases(4, seed=1)
    async with toy_engine(trained, stop_ids=[]) as engine:
        await engine.generate(ids, plain(30), session="warm")
        task = asyncio.create_task(engine.generate(ids, plain(150), session="a"))
        start = engine.stats.accepted_tokens
        await until(lambda: engine.stats.accepted_tokens > start + 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        turn = await engine.generate(ids + PHRASES[1][:5], plain(20, seed=3), session="a")
    async with toy_engine(trained, stop_ids=[], max_draft=0) as engine:
        expected = await engine.generate(ids + PHRASES[1][:5], plain(20, seed=3), session="a")
    assert_same([turn], [expected])


async def wave(engine: TorchEngine) -> list[Generation]:
    for number in range(12):
        engine.open(str(number))
    return await play(engine, plain())


async def test_deterministic_waves_are_equal_to_the_last_bit(trained: PreTrainedModel) -> None:
    """One after another wave, behind new weights, and in a new engine: the very same floats, from the same drafts."""
    async with toy_engine(trained, deterministic=True, max_batch=12) as engine:
        first = await asyncio.wait_for(wave(engine), 30)
        drafted = engine.stats.drafted_tokens
        second = await asyncio.wait_for(wave(engine), 30)
        engine.sync(toy_model(num_hidden_layers=2, seed=1))
        await asyncio.wait_for(wave(engine), 30)
        engine.sync(trained)
        engine.stats = EngineStats()
        third = await asyncio.wait_for(wave(engine), 30)
    assert first == second == third
    assert engine.stats.drafted_tokens == drafted > 0
    async with toy_engine(trained, deterministic=True, max_batch=12) as engine:
        assert await asyncio.wait_for(wave(engine), 30) == first


async def test_new_weights_forget_the_drafts(trained: PreTrainedModel) -> None:
    async with toy_engine(trained, stop_ids=[]) as engine:
        await engine.generate(phrases(4, seed=1), plain(80), session="a")
        before = replace(engine.stats)
        engine.sync(trained)
        await engine.generate(some_ids(6, seed=1), plain(2), session="b")  # two tokens cannot teach a draft
    assert before.drafted_tokens > 0
    assert engine.stats.drafted_tokens == before.drafted_tokens
