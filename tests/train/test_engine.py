"""The engine against plain forward passes: same numbers whatever is cached, shared, packed or moved."""

import asyncio

import numpy as np
import pytest
import torch
from engine_toys import VOCAB, forward_logprobs, largest_gap, plain, some_ids, toy_engine, toy_model, until
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from webdancer.errors import ConfigError
from webdancer.train import kv_cache
from webdancer.train.engine import Generation, TorchEngine
from webdancer.train.kv_cache import KVCache
from webdancer.train.packing import Ints

SYSTEM = some_ids(40, seed=1)


def new_cache(num_rows: int, max_positions: int) -> KVCache:
    return KVCache(
        num_layers=2,
        num_rows=num_rows,
        num_heads=3,
        head_dim=8,
        max_positions=max_positions,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


async def play(engine: TorchEngine, model: PreTrainedModel, number: int) -> float:
    """An episode of 4 turns with observations of various lengths; the largest gap to a forward pass."""
    ids = SYSTEM + some_ids(20, seed=100 + number // 4)  # groups of four share the question
    gap = 0.0
    for turn in range(4):
        generation = await engine.generate(ids, plain(4 + number % 9, seed=10 * number + turn), session=f"e{number}")
        gap = max(gap, largest_gap(model, ids, generation))
        ids = ids + generation.token_ids + some_ids(1 + 7 * number % 23, seed=turn)
        if number % 3 == 0:
            await asyncio.sleep(0.003)  # others go on meanwhile
    engine.release(f"e{number}")
    return gap


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen3", {}),
        ("qwen3", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
        ("qwen3", {"num_key_value_heads": 6, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    ],
)
async def test_logprobs_equal_a_forward_pass(family: str, changes: dict[str, object]) -> None:
    model = toy_model(family, **changes)
    # Fewer rows than episodes, and prompts cut into small pieces: queueing, sharing, moving and chunking all happen.
    async with toy_engine(model, max_batch=20, prefill_tokens=64) as engine:
        gaps = await asyncio.gather(*(play(engine, model, number) for number in range(24)))
    assert max(gaps) < 1e-5
    assert engine.stats.shared_tokens > 0
    assert engine.stats.num_moved_rows > 0


async def test_shelves_that_grow_and_shrink_keep_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model()
    monkeypatch.setattr(kv_cache, "_ROUND", 4)
    widths = set()
    async with toy_engine(model, max_batch=20, prefill_tokens=64) as engine:
        fit = engine._cache.fit

        def note(lengths: Ints) -> None:
            fit(lengths)
            widths.add(tuple(engine._cache.widths))

        monkeypatch.setattr(engine._cache, "fit", note)
        gaps = await asyncio.gather(*(play(engine, model, number) for number in range(24)))
        assert all(max(shelf) > 128 and len(set(shelf)) > 3 for shelf in zip(*widths, strict=True))
        engine.sync(model)
        assert engine._cache.widths == [4, 4]
        gaps += [await play(engine, model, 30)]
    assert max(gaps) < 1e-5


def test_a_cache_follows_the_lengths_of_its_rows() -> None:
    cache = new_cache(num_rows=20, max_positions=1000)
    assert cache.widths == [64, 64]
    lengths = np.zeros(20, dtype=np.int64)
    lengths[[3, 17]] = 100, 600
    cache.fit(lengths)
    assert cache.widths == [128, 640]  # a sixteenth more than needed, in steps of 64
    assert [cache.reach(0, 100), cache.reach(16, 600), cache.reach(16, 400)] == [128, 640, 400]
    keys, values = (torch.randn(2, 5, 3, 8), torch.randn(2, 5, 3, 8))  # [layers, tokens, heads, width]
    rows, positions = np.array([3, 3, 17, 17, 19]), np.array([0, 99, 0, 599, 7])
    for layer in range(2):
        cache.write(layer, cache.parts(rows, positions), keys[layer], values[layer])
    cache.permute({3: 17, 17: 3}, lengths.tolist())
    lengths[[3, 17]] = 600, 100
    cache.fit(lengths)
    assert cache.widths == [640, 128]
    for layer in range(2):
        for row, position, token in ((17, 0, 0), (17, 99, 1), (3, 0, 2), (3, 599, 3), (19, 7, 4)):
            held_keys, held_values = cache.block(layer, row, row + 1, position + 1)
            assert torch.equal(held_keys[:, :, position], keys[layer, token])
            assert torch.equal(held_values[:, position], values[layer, token])


def test_a_cache_without_room_says_what_it_needs_and_what_to_lower() -> None:
    # 2 x 3 layers x 1e12 rows x 2 heads x 16 x 64 positions at first x 4 bytes: more than any machine can address.
    with pytest.raises(
        ConfigError, match=r"1000000000000 rows of 64 positions take 45,776,367\.2 GiB, cpu has .* free"
    ):
        toy_engine(toy_model(), max_batch=10**12)


async def test_a_cache_that_finds_no_room_to_grow_says_so_to_the_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    new_shelf, model = KVCache._new_shelf, toy_model()

    def small_device(cache: KVCache, width: int, num_kept: int = 0) -> object:
        if width == 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return new_shelf(cache, width, num_kept)

    monkeypatch.setattr(KVCache, "_new_shelf", small_device)
    async with toy_engine(model, max_batch=20) as engine:
        with pytest.raises(ConfigError, match=r"16 rows of 256 positions .*lower policy\.max_batch"):
            await engine.generate(some_ids(200, seed=1), plain(4), session="long")
        assert await play(engine, model, 0) < 1e-5  # what fits goes on
        monkeypatch.setattr(KVCache, "_new_shelf", new_shelf)
        generation = await engine.generate(some_ids(200, seed=1), plain(4), session="long")
        assert largest_gap(model, some_ids(200, seed=1), generation) < 1e-5


async def test_bfloat16_stays_near_the_float32_model() -> None:
    model = toy_model()
    half = toy_model().to(torch.bfloat16)
    async with toy_engine(model, max_batch=20, dtype=torch.bfloat16) as engine:
        gaps = await asyncio.gather(*(play(engine, half, number) for number in range(24)))
    assert max(gaps) < 0.25  # the same rounding of weights; single operations round differently
    assert sum(gaps) / len(gaps) < 0.1


async def test_more_rows_than_a_block_and_rows_that_move() -> None:
    model = toy_model(num_hidden_layers=1)
    lengths = [5 + 37 * number % 180 for number in range(150)]

    async def one(number: int) -> float:
        ids = some_ids(lengths[number], seed=number)
        generation = await engine.generate(ids, plain(3 + number % 40, seed=number), session=str(number))
        engine.release(str(number))
        return largest_gap(model, ids, generation)

    async with toy_engine(model, max_batch=150) as engine:
        gaps = await asyncio.gather(*(one(number) for number in range(150)))
    assert max(gaps) < 1e-5
    assert engine.stats.num_moved_rows > 0


async def test_a_prompt_is_computed_once() -> None:
    """prompt 60; turn 1 samples 3; then 10 more: 73 ids. Of those 62 are cached: the third sampled token never was computed."""
    ids = some_ids(60, seed=3)
    async with toy_engine(toy_model(), stop_ids=[]) as engine:
        first = await engine.generate(ids, plain(3), session="a")
        assert (engine.stats.prompt_tokens, engine.stats.cached_tokens, engine.stats.prefilled_tokens) == (60, 0, 60)
        await engine.generate(ids + first.token_ids + some_ids(10, seed=4), plain(3), session="a")
    stats = engine.stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.shared_tokens) == (60 + 73, 62, 0)
    assert stats.prefilled_tokens == 60 + 11
    assert stats.sampled_tokens == 6


async def test_a_group_computes_its_prompt_once() -> None:
    """8 rollouts of one question (50 ids): one computes 50, the others take 49 from it and compute the last."""
    ids = some_ids(50, seed=3)
    async with toy_engine(toy_model()) as engine:
        await asyncio.gather(*(engine.generate(ids, plain(4, seed=n), session=str(n)) for n in range(8)))
    stats = engine.stats
    assert (stats.prompt_tokens, stats.shared_tokens, stats.prefilled_tokens) == (400, 7 * 49, 50 + 7)


async def test_the_system_prompt_is_shared_by_all_questions() -> None:
    """40 shared ids, 20 of their own: the second group takes 40, its second rollout all 59."""
    async with toy_engine(toy_model()) as engine:
        for session, seed in (("a", 1), ("b", 2), ("c", 2)):
            await engine.generate([*SYSTEM, 7 + seed, *some_ids(19, seed=seed)], plain(2), session=session)
    assert engine.stats.shared_tokens == 40 + 59


async def test_an_episode_that_is_over_leaves_its_opening_to_the_next() -> None:
    ids = some_ids(30, seed=1)
    async with toy_engine(toy_model(), max_batch=1) as engine:
        await engine.generate(ids, plain(2), session="a")
        engine.release("a")
        await engine.generate([*ids, 9], plain(2), session="b")
    assert engine.stats.cached_tokens == 30


async def test_changed_history_is_computed_again() -> None:
    model = toy_model()
    ids = some_ids(30, seed=1)
    async with toy_engine(model) as engine:
        await engine.generate(ids, plain(4), session="a")
        changed = [*ids[:12], 100 if ids[12] != 100 else 101, *ids[13:]]
        generation = await engine.generate(changed, plain(4), session="a")
    assert largest_gap(model, changed, generation) < 1e-5
    assert engine.stats.cached_tokens == 12


async def test_new_weights_take_effect_and_nothing_old_is_used() -> None:
    old, new = toy_model(seed=0), toy_model(seed=1)
    ids = some_ids(30, seed=1)
    async with toy_engine(old, stop_ids=[]) as engine:
        first = await engine.generate(ids, plain(4), session="a")
        engine.sync(new)
        longer = ids + first.token_ids + [9, 10]
        second = await engine.generate(longer, plain(4), session="a")
        third = await engine.generate(ids, plain(4), session="b")
    assert largest_gap(old, ids, first) < 1e-5
    assert largest_gap(new, longer, second) < 1e-5
    assert largest_gap(new, ids, third) < 1e-5
    assert engine.stats.cached_tokens == 0


@pytest.mark.parametrize("tied", [True, False])
async def test_new_weights_need_no_room_beside_the_old_ones(tied: bool) -> None:
    old, new = (toy_model(seed=seed, tie_word_embeddings=tied) for seed in (0, 1))
    ids = some_ids(30, seed=1)
    async with toy_engine(old) as engine:
        before = engine._decoder._w
        engine.sync(new)
        assert engine._decoder._w is before
        assert (before.head.data_ptr() == before.embedding.data_ptr()) is tied
        generation = await engine.generate(ids, plain(8), session="a")
    assert largest_gap(new, ids, generation) < 1e-5


async def test_new_weights_in_the_middle_of_a_turn() -> None:
    """The tokens before the change are the old model's, those after it the new model's, behind the same ids."""
    old, new = toy_model(seed=0), toy_model(seed=1)
    ids = some_ids(30, seed=1)
    async with toy_engine(old, stop_ids=[], max_draft=0) as engine:
        turn = asyncio.create_task(engine.generate(ids, plain(12), session="a"))
        await until(lambda: engine.stats.sampled_tokens >= 5)
        assert engine.stats.sampled_tokens == 5
        engine.sync(new)
        generation = await turn
    everything = ids + generation.token_ids
    for n, (id_, logprob) in enumerate(zip(generation.token_ids, generation.logprobs, strict=True)):
        expected = forward_logprobs(old if n < 5 else new, everything)[len(ids) + n - 1, id_]
        assert logprob == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
async def test_lora_adapters_are_merged() -> None:
    torch.manual_seed(0)
    model = get_peft_model(toy_model("qwen2"), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    ids = some_ids(30, seed=1)
    async with toy_engine(model.eval()) as engine:
        generation = await engine.generate(ids, plain(8), session="a")
    assert largest_gap(model, ids, generation) < 1e-5
    with model.disable_adapter():
        assert largest_gap(model, ids, generation) > 1e-2  # so the adapters did matter


async def test_greedy_takes_the_likeliest() -> None:
    model = toy_model()
    ids = some_ids(30, seed=1)
    async with toy_engine(model, stop_ids=[]) as engine:
        generation = await engine.generate(ids, plain(10, temperature=0.0), session="a")
    expected = forward_logprobs(model, ids + generation.token_ids)
    assert generation.token_ids == expected[len(ids) - 1 : -1].argmax(-1).tolist()
    assert largest_gap(model, ids, generation) < 1e-5


async def test_logprobs_under_temperature() -> None:
    model = toy_model()
    ids = some_ids(30, seed=1)
    async with toy_engine(model, stop_ids=[]) as engine:
        generation = await engine.generate(ids, plain(10, temperature=0.5), session="a")
    sharpened = (forward_logprobs(model, ids + generation.token_ids) / 0.5).log_softmax(-1)
    for n, (id_, logprob) in enumerate(zip(generation.token_ids, generation.logprobs, strict=True)):
        assert logprob == pytest.approx(float(sharpened[len(ids) + n - 1, id_]), abs=1e-5)


async def test_a_stop_id_ends_the_turn_and_is_its_last_token() -> None:
    model = toy_model()
    ids = some_ids(30, seed=1)
    async with toy_engine(model, stop_ids=[]) as engine:
        free = await engine.generate(ids, plain(20, seed=4), session="a")
    stop = free.token_ids[6]
    async with toy_engine(model, stop_ids=[stop]) as engine:
        stopped = await engine.generate(ids, plain(20, seed=4), session="a")
    assert stopped.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]
    assert (stopped.finish, free.finish, len(free.token_ids)) == ("stop", "length", 20)


async def test_seeds_reproduce_and_company_does_not_matter() -> None:
    model = toy_model()

    async def turns(engine: TorchEngine, seeds: range) -> list[Generation]:
        jobs = (engine.generate(some_ids(10 + seed, seed), plain(15, seed=seed), session=str(seed)) for seed in seeds)
        return await asyncio.gather(*jobs)

    async with toy_engine(model) as engine:
        alone = (await turns(engine, range(3, 4)))[0]
    async with toy_engine(model) as engine:
        together = await turns(engine, range(8))
    assert together[3].token_ids == alone.token_ids
    assert together[3].logprobs == pytest.approx(alone.logprobs, abs=1e-5)
    async with toy_engine(model) as engine:
        ids = some_ids(13, 3)
        other = await engine.generate(ids, plain(15, seed=99), session="a")
    assert other.token_ids != alone.token_ids


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            lambda: LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=VOCAB,
                    hidden_size=32,
                    intermediate_size=32,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                )
            ),
            "architecture 'llama'",
        ),
        (lambda: toy_model(hidden_act="gelu"), "activation 'gelu'"),
        (
            lambda: toy_model("qwen2", use_sliding_window=True, sliding_window=32, max_window_layers=0),
            "last 32 positions",
        ),
        (
            lambda: toy_model(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
            "'dynamic'",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(model: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        toy_engine(model())  # type: ignore[operator]
