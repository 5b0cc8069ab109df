"""Does each stage gain what the paper says it gains? Several seeds of `reproduce.toml`, with the control that RL needs.

`base`, `sft`, `sft_more` and `rl` answer the questions of a web that nothing was trained on, greedily and at the paper's
temperature. `sft_more` is the control: the time that RL took is spent on rejection sampling and further SFT instead. Half of
it goes into rollouts of the SFT policy on RL's own questions, half into training with those that were right, mixed with at
least as many of SFT's own trajectories (without these it forgot more than it gained). Where the validation finds no gain, the
SFT policy's weights stay. Scores are normalised exact match, not the reward's judge. `OUT/summary.json` gets one entry a seed,
`OUT/results.md` the tables.
"""

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import count, cycle
from pathlib import Path
from statistics import median

from pydantic import JsonValue

from webdancer.agent.loop import run_episode
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.tools import Toolbox
from webdancer.calls.outside import Outside
from webdancer.config import Config
from webdancer.errors import ConfigError, TrainError
from webdancer.judge.match import exact_match
from webdancer.llm.protocol import Sampling
from webdancer.pipeline.comparison import (
    SYSTEMS,
    TEMPERATURES,
    TOP_P,
    SeedFigures,
    figures_of,
    holds,
    results_tables,
)
from webdancer.pipeline.evaluating import evaluate_systems
from webdancer.pipeline.models import open_models
from webdancer.pipeline.policies import open_policy
from webdancer.pipeline.run_folder import RunFolder
from webdancer.pipeline.stages import open_outside, run_pipeline, sites
from webdancer.pipeline.toolbox import open_toolbox
from webdancer.records import QA, CotMode, Status, Trajectory
from webdancer.store import read_records, write_atomic, write_json, write_records
from webdancer.synth.bounded import run_bounded
from webdancer.synth.seeds import derive_rng, derive_seed
from webdancer.web.snapshot import Snapshot

_WORLD_SEEDS = ((7, 8), (17, 18), (27, 28))
"""Training and held-out web of each seed; a fourth seed has the first one's webs again."""
_RATE_SHARE = 0.25
"""The control's learning rate as a share of SFT's: it goes on from weights that SFT ended at a twentieth."""


async def reproduce(out: Path, config: Config, *, num_seeds: int) -> dict[str, JsonValue]:
    """Run all seeds into `out`, each in a folder of its own; what is done is not done again. Returns the summary."""
    found: list[SeedFigures] = []
    for seed, (train_seed, heldout_seed) in zip(range(num_seeds), cycle(_WORLD_SEEDS), strict=False):
        world = config.world.model_copy(update={"seed": train_seed, "heldout_seed": heldout_seed})
        settings = config.model_copy(update={"seed": seed, "world": world})
        found.append(await _run_seed(out / f"seed-{seed}", settings))
        entries: list[JsonValue] = [figures.model_dump(mode="json") | {"holds": holds(figures)} for figures in found]
        summary: dict[str, JsonValue] = {"seeds": entries, "holds": all(map(holds, found))}
        write_json(out / "summary.json", summary)
        write_atomic(out / "results.md", results_tables(found))
    return summary


async def _run_seed(path: Path, config: Config) -> SeedFigures:
    if config.policy.base == "none":
        raise ConfigError("policy.base is 'none': there is no policy whose training could be compared")
    await run_pipeline(path, config, until="rl")
    run = RunFolder(path, config)
    if not run.is_done("sft_more"):
        with run.stage("sft_more"), open_outside(run, "sft_more") as outside:
            await _train_more(run, outside, budget_s=_seconds(run)["rl"])
    if not run.is_done("comparison"):
        with run.stage("comparison"), open_outside(run, "comparison") as outside:
            for temperature in TEMPERATURES:
                top_p = TOP_P if temperature else 1.0
                update = {"systems": SYSTEMS, "temperature": temperature, "top_p": top_p}
                here = config.model_copy(update={"eval": config.eval.model_copy(update=update)})
                await evaluate_systems(path, here, sites(run)[-1].snapshot, outside, suffix=f"@{temperature:g}")
    world_seeds = (config.world.seed, config.world.heldout_seed)
    return figures_of(path, seed=config.seed, world_seeds=world_seeds, seconds=_seconds(run))


def _metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _seconds(run: RunFolder) -> dict[str, float]:
    """Of each stage; of SFT and RL also what their steps took in attempts that were killed.

    (But not the rollouts of killed attempts that a later one took over.)
    """
    trained = {stage: _metrics(run.path / stage)[-1]["seconds"] for stage in ("sft", "rl")}
    return {stage: round(max(seconds, trained.get(stage, 0)), 2) for stage, seconds in run.seconds().items()}


async def _train_more(run: RunFolder, outside: Outside, *, budget_s: float) -> None:
    """Spend RL's time on further SFT: the SFT policy's own right trajectories, and those that it was trained on."""
    from webdancer.train.sft import train_sft
    from webdancer.train.tool_cache import CachedToolbox

    config, path, began = run.config, run.path, time.monotonic()
    shutil.rmtree(path / "sft_more", ignore_errors=True)  # of an attempt that was stopped, with other trajectories
    qas = list(read_records(path / "rl_qa.jsonl", QA))
    with Snapshot.open(path / "snapshot") as snapshot:
        async with (
            open_models(config.llm, mode=config.sample.mode, outside=outside) as models,
            open_toolbox(config, models.summariser, outside, snapshot=snapshot) as toolbox,
        ):
            cached = CachedToolbox(toolbox)  # as RL's
            sampled = await _sample_own(run, qas, cached, until=began + budget_s / 2)
    right = [t for qa, t in sampled if t.status is Status.ANSWERED and exact_match(qa.answer, t.answer or "")]
    write_records(path / "sft_more.jsonl", right)
    if not right:
        raise TrainError(
            f"{path}: the SFT policy solved none of RL's questions within {budget_s / 2:.0f} s; nothing to train on"
        )
    # As many trajectories as the time left allows, at the speed of SFT's steps here.
    tokens_per_s = median(step["tokens_per_s"] for step in _metrics(path / "sft"))
    tokens_each = sum(trajectory.num_tokens for trajectory in right) / len(right)
    num_read = (began + budget_s - time.monotonic()) * tokens_per_s / tokens_each
    trajectories = _mixed(right, list(read_records(path / "sft.jsonl", Trajectory)), num_read, seed=config.seed)
    update = {
        "num_epochs": max(0.1, num_read / len(trajectories)),
        "learning_rate": config.sft.learning_rate * _RATE_SHARE,
        "patience": 1000,
    }
    train_sft(
        trajectories,
        base=path / "sft",
        out=path / "sft_more",
        settings=config.sft.model_copy(update=update),
        policy=config.policy,
        prompt=config.agent.prompt,
        schemas=TOOL_SCHEMAS,
        seed=config.seed,
        may_keep_start=True,
    )


def _mixed(right: Sequence[Trajectory], old: Sequence[Trajectory], num_read: float, *, seed: int) -> list[Trajectory]:
    """The policy's own trajectories and, of those it was trained on, as many, or more where there is time for more."""
    num_old = min(len(old), max(len(right), round(num_read) - len(right)))
    return [*right, *derive_rng("mixed", seed).sample(old, num_old)]


async def _sample_own(
    run: RunFolder, qas: Sequence[QA], toolbox: Toolbox, *, until: float
) -> list[tuple[QA, Trajectory]]:
    """Episodes of the SFT policy at RL's temperature, question by question and round by round, until the time is over."""
    from webdancer.train.rollout import QuestionOrder

    config = run.config
    settings = config.agent.model_copy(update={"force_answer": False})
    draws = map(QuestionOrder(qas, seed=config.seed).draw, count())  # RL's order
    found: list[tuple[QA, Trajectory]] = []

    async with open_policy(run.path / "sft", config.policy, name="sft") as policy:

        async def work(_: int) -> None:
            for draw in draws:
                if time.monotonic() >= until:
                    break
                qa, key = draw.qa, f"{draw.qa.id}-own{draw.epoch}"
                with closing(policy.episode(key)) as episode:
                    trajectory = await run_episode(
                        episode,
                        toolbox,
                        trajectory_id=key,
                        qa_id=qa.id,
                        question=qa.question,
                        settings=settings,
                        mode=CotMode.SHORT,
                        sampling=Sampling(temperature=config.rl.temperature, top_p=config.rl.top_p),
                        seed=derive_seed(config.seed, "own", qa.id, draw.epoch),
                    )
                found.append((qa, trajectory))

        await run_bounded(work, range(config.policy.max_batch), concurrency=config.policy.max_batch)
    return found
