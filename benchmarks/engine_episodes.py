"""The generation engine in real episodes: with drafts, without, and `transformers` generate in its place.

    python benchmarks/engine_episodes.py POLICY RUN [--episodes 128] [--concurrency 64] [--temperature 1.0] [--group 1]
        [--runs 2] [--threads 1]

POLICY is a trained checkpoint, RUN the folder of a run of the embedded web: its snapshot is browsed, its questions for
reinforcement learning are asked. Every side plays the same episodes of the same agent loop with the same tools, answers of
tools are cached before, the sides take turns, `--runs` times. Tokens differ a little between the sides, since bfloat16 rounds
by the size of a batch.

The peer generates a turn of all open episodes as one left-padded batch (sdpa attention, dynamic cache) that ends with its
longest turn. It returns no log-probabilities, the engine does. Seconds of the processor include the agent loop and the tools.

Prints the figures and writes benchmarks/out/engine_episodes.json.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.calls.outside import Outside
from webdancer.config import AgentSettings, Config
from webdancer.fast_malloc import preload
from webdancer.llm.protocol import Sampling
from webdancer.pipeline.models import open_models
from webdancer.pipeline.toolbox import open_toolbox
from webdancer.records import QA, CotMode
from webdancer.settings_file import load_config, packaged_config
from webdancer.store import read_records
from webdancer.train.engine import EngineStats, Generation, TokenSampling, TorchEngine
from webdancer.train.generation import Engine
from webdancer.train.policy import EnginePolicy
from webdancer.train.tokens import ChatTokens
from webdancer.train.tool_cache import CachedToolbox
from webdancer.web.snapshot import Snapshot


class GenerateEngine(Engine):
    """`transformers` generate as an engine: when all open episodes wait for a turn, they get it as one batch."""

    def __init__(self, model: PreTrainedModel, tokens: ChatTokens, max_context: int) -> None:
        self.stats = EngineStats()
        self._model, self._tokens, self._max_context = model, tokens, max_context
        self._open: set[str] = set()
        self._waiting: list[tuple[list[int], TokenSampling, asyncio.Future[Generation]]] = []

    async def __aenter__(self) -> "GenerateEngine":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def open(self, session: str) -> None:
        self._open.add(session)

    def release(self, session: str) -> None:
        self._open.discard(session)

    async def generate(self, ids: Sequence[int], sampling: TokenSampling, *, session: str) -> Generation:
        future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self._waiting.append((list(ids), sampling, future))
        return await future

    async def _run(self) -> None:
        while True:
            for _ in range(20):  # episodes that follow others get the time to be opened
                await asyncio.sleep(0)
            if self._waiting and len(self._waiting) == len(self._open):
                waiting, self._waiting = self._waiting, []
                self._batch(waiting)
            else:
                await asyncio.sleep(0.0005)

    @torch.inference_mode()
    def _batch(self, waiting: list[tuple[list[int], TokenSampling, asyncio.Future[Generation]]]) -> None:
        prompts = [ids for ids, _, _ in waiting]
        limits = [min(sampling.max_tokens, self._max_context - len(ids)) for ids, sampling, _ in waiting]
        longest = max(map(len, prompts))
        pad = self._tokens.pad_id
        temperature = waiting[0][1].temperature
        sampled = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        out = self._model.generate(  # type: ignore[operator]
            torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts]),
            attention_mask=torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]),
            max_new_tokens=max(limits),
            pad_token_id=pad,
            eos_token_id=sorted(self._tokens.stop_ids),
            **(sampled or {"do_sample": False}),
        )[:, longest:].tolist()
        self.stats.num_steps += len(out[0])
        for ids, limit, (_, _, future) in zip(out, limits, waiting, strict=True):
            ends = (n + 1 for n, id_ in enumerate(ids) if id_ in self._tokens.stop_ids)
            turn = ids[: min(limit, next(ends, limit))]
            self.stats.num_requests += 1
            self.stats.sampled_tokens += len(turn)
            stopped = turn[-1] in self._tokens.stop_ids
            future.set_result(Generation(turn, [0.0] * len(turn), "stop" if stopped else "length"))


async def play(
    engine: TorchEngine | GenerateEngine,
    tokens: ChatTokens,
    toolbox: Toolbox,
    qas: Sequence[QA],
    settings: AgentSettings,
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """All episodes over one engine, whose cache is empty at first; its figures."""
    policy = EnginePolicy(engine, tokens, name="policy")
    slots = asyncio.Semaphore(arguments.concurrency)
    engine.stats = EngineStats()

    async def episode(number: int) -> int:
        qa = qas[number // arguments.group]
        async with slots:
            with closing(policy.episode(f"{number:05d}")) as model:
                trajectory = await run_episode(
                    model,
                    toolbox,
                    trajectory_id=f"{number:05d}",
                    qa_id=qa.id,
                    question=qa.question,
                    settings=settings,
                    mode=CotMode.SHORT,
                    sampling=Sampling(temperature=arguments.temperature, top_p=1.0),
                    seed=number,
                )
            return len(trajectory.steps)

    async with engine:
        wall, cpu = time.perf_counter(), time.process_time()
        num_turns = sum(await asyncio.gather(*map(episode, range(arguments.episodes))))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stats = asdict(engine.stats)
    rates = {"tokens_per_s": stats["sampled_tokens"] / wall, "tokens_per_cpu_s": stats["sampled_tokens"] / cpu}
    return {**rates, "wall_s": wall, "cpu_s": cpu, "num_turns": num_turns, **stats}


async def compare(config: Config, arguments: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Every side `--runs` times, in turn."""
    tokens = ChatTokens.load(arguments.policy)
    model = AutoModelForCausalLM.from_pretrained(arguments.policy, dtype=torch.bfloat16)  # in evaluation mode
    context = config.policy.max_context

    def new_engine(**changes: int) -> TorchEngine:
        return TorchEngine(
            model,
            stop_ids=tokens.stop_ids,
            max_context=context,
            max_batch=arguments.concurrency,
            dtype=torch.bfloat16,
            **changes,
        )

    engines: dict[str, TorchEngine | GenerateEngine] = {"drafts": new_engine(), "plain": new_engine(max_draft=0)}
    if arguments.peer:
        engines["generate"] = GenerateEngine(model, tokens, context)
    qas = list(read_records(arguments.run / "rl_qa.jsonl", QA))
    random.Random(0).shuffle(qas)
    settings = config.agent.model_copy(update={"force_answer": False, "max_seconds": 1e6})
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    with Snapshot.open(arguments.run / "snapshot") as snapshot:
        outside = Outside("episodes")
        async with (
            open_models(config.llm, mode=config.sample.mode, outside=outside) as models,
            open_toolbox(config, models.summariser, outside, snapshot=snapshot) as tools,
        ):
            toolbox = CachedToolbox(tools)
            await play(engines["drafts"], tokens, toolbox, qas, settings, arguments)  # warms the tools' cache
            for _ in range(arguments.runs):
                for name, engine in engines.items():
                    if isinstance(engine, TorchEngine):
                        engine.sync(model)
                    figures[name].append(await play(engine, tokens, toolbox, qas, settings, arguments))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("policy", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--group", type=int, default=1, help="episodes of one question")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = packaged_config("tiny")
    assert path is not None
    figures = asyncio.run(compare(load_config(path), arguments))
    best = {name: max(run["tokens_per_cpu_s"] for run in runs) for name, runs in figures.items()}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "settings": {name: str(value) for name, value in vars(arguments).items()},
        "tokens_per_s": {name: [round(run["tokens_per_s"]) for run in runs] for name, runs in figures.items()},
        "tokens_per_cpu_s": {name: [round(run["tokens_per_cpu_s"]) for run in runs] for name, runs in figures.items()},
        "drafts_to": {
            name: {
                unit: round(statistics.median(o[key] / t[key] for o, t in zip(figures["drafts"], runs, strict=True)), 2)
                for unit, key in (("wall", "tokens_per_s"), ("cpu", "tokens_per_cpu_s"))
            }
            | {"best_cpu": round(best["drafts"] / best[name], 2)}
            for name, runs in figures.items()
            if name != "drafts"
        },
        "last": {
            name: {key: round(value, 2) for key, value in runs[-1].items() if value} for name, runs in figures.items()
        },
    }
    print(json.dumps(result, indent=2))
    out = Path(__file__).parent / "out" / "engine_episodes.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    preload()
    main()
