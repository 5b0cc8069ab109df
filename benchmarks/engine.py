"""Sampled tokens per second of the generation engine against `transformers` generate with a fresh prefill every turn.

    python benchmarks/engine.py [--episodes 64] [--turns 5] [--runs 3] [--threads 1] [--dtype bfloat16]

Both sides do the same multi-turn work with the same model of random weights (the shape of the shipped base) in one process,
one after the other, `--runs` times in turn. Random text cannot be guessed ahead; engine_episodes.py has real episodes.
Here they come in groups of 8 rollouts of one question; all share a system prompt. A turn samples between 16 and 96 tokens
(fixed beforehand, the same for both; there are no stop ids), then an observation of 40 to 160 tokens is read.

The peer generates a turn of all episodes as one left-padded batch, sdpa attention, dynamic cache, until the longest turn of the
batch is done, which is how `generate` is used; only tokens that belong to a turn count. It returns no log-probabilities,
the engine does. Seconds of the processor are told beside those of the clock,
since other work on the machine stretches the latter.

Prints the figures and writes benchmarks/out/engine.json.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from webdancer.fast_malloc import preload
from webdancer.train.engine import EngineStats, TokenSampling, TorchEngine
from webdancer.train.model import resolve_base

CONFIG = Qwen3Config.from_pretrained(resolve_base("tiny"), attn_implementation="sdpa")
GROUP = 8
NUM_SYSTEM, NUM_QUESTION = 150, 40


class Episode(NamedTuple):
    """The work of one episode."""

    prompt: list[int]
    lengths: list[int]
    """Tokens sampled in each turn."""
    observations: list[list[int]]


def make_work(num_episodes: int, num_turns: int) -> list[Episode]:
    rng = random.Random(0)

    def ids(num: int) -> list[int]:
        return [rng.randrange(CONFIG.vocab_size) for _ in range(num)]

    system = ids(NUM_SYSTEM)
    questions = [ids(NUM_QUESTION) for _ in range(-(-num_episodes // GROUP))]
    return [
        Episode(
            system + questions[number // GROUP],
            [rng.randint(16, 96) for _ in range(num_turns)],
            [ids(rng.randint(40, 160)) for _ in range(num_turns)],
        )
        for number in range(num_episodes)
    ]


def make_model(dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(CONFIG).to(dtype).eval()


def run_engine(engine: TorchEngine, model: PreTrainedModel, work: list[Episode]) -> dict[str, object]:
    """All episodes over the engine; they join and leave as they come. Its cache is empty at first, as after an update."""
    engine.sync(model)
    engine.stats = EngineStats()

    async def play(number: int, episode: Episode) -> None:
        ids = episode.prompt
        for turn, length in enumerate(episode.lengths):
            sampling = TokenSampling(max_tokens=length, seed=100 * number + turn)
            generation = await engine.generate(ids, sampling, session=str(number))
            ids = ids + generation.token_ids + episode.observations[turn]
        engine.release(str(number))

    async def play_all() -> None:
        async with engine:
            await asyncio.gather(*(play(number, episode) for number, episode in enumerate(work)))

    asyncio.run(play_all())
    stats = engine.stats
    return {
        "steps": stats.num_steps,
        "prompt_tokens": stats.prompt_tokens,
        "prefilled_tokens": stats.prefilled_tokens,
        "prefill_s": round(stats.prefill_s, 2),
        "decode_s": round(stats.decode_s, 2),
    }


@torch.inference_mode()
def run_generate(model: PreTrainedModel, work: list[Episode]) -> dict[str, object]:
    """All episodes by `generate`, a turn of all of them at a time."""
    prompts = [episode.prompt for episode in work]
    num_prefilled = num_steps = 0
    for turn in range(len(work[0].lengths)):
        longest = max(len(prompt) for prompt in prompts)
        padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        most = max(episode.lengths[turn] for episode in work)
        out = model.generate(  # type: ignore[operator]
            padded,
            attention_mask=mask,
            max_new_tokens=most,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            eos_token_id=None,
        )
        num_prefilled += int(mask.sum())
        num_steps += most
        for number, episode in enumerate(work):
            sampled = out[number, longest : longest + episode.lengths[turn]].tolist()
            prompts[number] = prompts[number] + sampled + episode.observations[turn]
    return {"steps": num_steps, "prefilled_tokens": num_prefilled}


class Timing(NamedTuple):
    wall_s: float
    cpu_s: float
    detail: dict[str, object]


def timed(run: Callable[[], dict[str, object]]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    detail = run()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, detail)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype: torch.dtype = getattr(torch, arguments.dtype)
    model, work = make_model(dtype), make_work(arguments.episodes, arguments.turns)
    num_tokens = sum(sum(episode.lengths) for episode in work)
    engine = TorchEngine(model, stop_ids=(), max_context=2048, max_batch=len(work), dtype=dtype)
    run_engine(engine, model, work)  # warm-up of both
    run_generate(model, work[:2])
    ours, theirs = [], []
    for _ in range(arguments.runs):
        ours.append(timed(lambda: run_engine(engine, model, work)))
        theirs.append(timed(lambda: run_generate(model, work)))
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "settings": vars(arguments),
        "sampled_tokens": num_tokens,
        "tokens_per_episode": sum(len(e.prompt) + sum(e.lengths) + sum(map(len, e.observations[:-1])) for e in work)
        / len(work),
        "engine_tokens_per_s": [round(num_tokens / timing.wall_s) for timing in ours],
        "generate_tokens_per_s": [round(num_tokens / timing.wall_s) for timing in theirs],
        "engine_tokens_per_cpu_s": [round(num_tokens / timing.cpu_s) for timing in ours],
        "generate_tokens_per_cpu_s": [round(num_tokens / timing.cpu_s) for timing in theirs],
        "ratio_wall": round(statistics.median(t.wall_s / o.wall_s for t, o in zip(theirs, ours, strict=True)), 1),
        "ratio_cpu": round(statistics.median(t.cpu_s / o.cpu_s for t, o in zip(theirs, ours, strict=True)), 1),
        "engine": ours[-1].detail,
        "generate": theirs[-1].detail,
    }
    print(json.dumps(result, indent=2))
    out = Path(__file__).parent / "out" / "engine.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    preload()
    main()
