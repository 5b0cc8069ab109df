"""The stage that puts the held-out questions to every system: checkpoints of the policy, the teacher, and baselines.

All agents run through the same loop with the same tools. The checkpoints (`base`, `sft`, `rl`) answer as in training: no
answer is demanded from them at a limit, and an episode without one counts as wrong. What a system cost is kept in
`eval/costs.json`, added up over all attempts at the stage but those that were killed.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, JsonValue

from webdancer.agent.tools import Toolbox
from webdancer.calls.outside import Outside
from webdancer.config import Config
from webdancer.errors import StoreError
from webdancer.eval.systems import (
    Answerer,
    agent_answerer,
    closed_book_answerer,
    evaluate,
    guess_answerer,
    one_search_answerer,
    policy_answerer,
)
from webdancer.llm.protocol import Sampling
from webdancer.pipeline.models import Models, open_models
from webdancer.pipeline.policies import CHECKPOINTS, checkpoint_of, open_policy
from webdancer.pipeline.progress import progress_bar
from webdancer.pipeline.toolbox import open_toolbox
from webdancer.records import QA, CotMode, EvalResult, Trajectory
from webdancer.store import RecordWriter, read_records, write_json
from webdancer.web.protocol import SearchProvider
from webdancer.web.search import SnapshotSearch
from webdancer.web.snapshot import Snapshot


class _Tools(NamedTuple):
    """What the systems work with."""

    toolbox: Toolbox
    search: SearchProvider
    """Of the snapshot, for the baseline that searches once."""
    models: Models


class Cost(BaseModel):
    """What one system cost."""

    seconds: float = 0.0
    prompt_tokens: int = 0
    """Given to the engine, all turns added up; 0 where the system is no checkpoint."""
    cached_tokens: int = 0
    """Of these, not computed again, because the engine's cache held them."""
    sampled_tokens: int = 0

    def as_json(self) -> dict[str, JsonValue]:
        """For the summary: engine tokens only where there was an engine."""
        if not self.sampled_tokens:
            return {"seconds": round(self.seconds, 2)}
        rate = round(self.sampled_tokens / self.seconds, 1)
        return {**self.model_dump(), "seconds": round(self.seconds, 2), "sampled_tokens_per_s": rate}

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in Cost.model_fields})


def label(system: str, config: Config) -> str:
    """The name under which a system's results are kept: the agent is called `scribe` only where the scribe is its model."""
    endpoint = config.llm.teacher or config.llm.default
    is_scribe = endpoint.model in ("scribe", "scribe-reasoner")
    return "teacher" if system == "scribe" and not is_scribe else system


def systems(config: Config) -> list[str]:
    """The systems of the settings, without the checkpoints where no policy is trained."""
    return [name for name in config.eval.systems if config.policy.base != "none" or name not in CHECKPOINTS]


def labels(config: Config) -> list[str]:
    """The labels of all systems of the settings, in their order."""
    return [label(system, config) for system in systems(config)]


def read_costs(path: Path) -> dict[str, Cost]:
    """The cost of each system of a run, by its label."""
    file = path / "eval" / "costs.json"
    if not file.exists():
        return {}
    return {name: Cost.model_validate(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}


async def evaluate_systems(
    path: Path, config: Config, snapshot_path: Path, outside: Outside, *, suffix: str = ""
) -> None:
    """Put the held-out questions of the run in `path` to every system of the settings.

    Args:
        suffix: stands behind the systems' labels, to tell several evaluations of one run apart.

    Raises:
        StoreError: there are no held-out questions.
    """
    heldout = list(read_records(path / "heldout_qa.jsonl", QA))
    if not heldout:
        raise StoreError(f"{path / 'heldout_qa.jsonl'} holds no questions; nothing can be evaluated")
    with Snapshot.open(snapshot_path) as snapshot:
        async with (
            open_models(config.llm, mode=config.sample.mode, outside=outside) as models,
            open_toolbox(config, models.summariser, outside, snapshot=snapshot) as toolbox,
        ):
            search = outside.taped_search(outside.metered_search(SnapshotSearch(snapshot), name="snapshot"))
            tools = _Tools(toolbox, search, models)
            for system in systems(config):
                name, start, cost = label(system, config) + suffix, time.perf_counter(), Cost()
                if _is_answered(path, name, heldout):
                    continue
                try:
                    async with _answerer(system, path, config, tools) as (answerer, read_engine):
                        try:
                            await _evaluate(name, heldout, answerer, path, _concurrency(system, config), models)
                        finally:
                            cost = read_engine()
                finally:
                    cost.seconds = time.perf_counter() - start
                    _add_cost(path, name, cost)


def _concurrency(system: str, config: Config) -> int:
    """Episodes at once: of a checkpoint not more than its engine has rows, since the clock of an episode that waits runs."""
    return min(config.eval.concurrency, config.policy.max_batch) if system in CHECKPOINTS else config.eval.concurrency


def _is_answered(path: Path, name: str, heldout: Sequence[QA]) -> bool:
    """Whether a system has answered all questions in an earlier attempt at the stage."""
    answered = {result.qa_id for result in read_records(path / "eval" / f"{name}.jsonl", EvalResult)}
    return answered >= {qa.id for qa in heldout}


async def _evaluate(
    name: str,
    heldout: Sequence[QA],
    answerer: Answerer,
    path: Path,
    concurrency: int,
    models: Models,
) -> None:
    with (
        RecordWriter(path / "eval" / f"{name}.jsonl", EvalResult) as results,
        RecordWriter(path / "eval" / f"{name}_trajectories.jsonl", Trajectory) as trajectories,
        progress_bar(f"answers of {name}", len(heldout)) as advance,
    ):
        await evaluate(
            name,
            heldout,
            answerer,
            judge_model=models.judge,
            results=results,
            trajectories=trajectories,
            concurrency=concurrency,
            on_progress=advance,
        )


@asynccontextmanager
async def _answerer(
    system: str, path: Path, config: Config, tools: _Tools
) -> AsyncIterator[tuple[Answerer, Callable[[], Cost]]]:
    """How a system answers, and what reads off its engine."""
    if system not in CHECKPOINTS:
        yield _model_answerer(system, path, config, tools), Cost
        return
    settings = config.agent.model_copy(update={"force_answer": False})
    async with open_policy(checkpoint_of(system, path, config), config.policy, name=system) as policy:

        def read_engine() -> Cost:
            stats = policy.engine.stats
            return Cost(
                prompt_tokens=stats.prompt_tokens,
                cached_tokens=stats.cached_tokens + stats.shared_tokens,
                sampled_tokens=stats.sampled_tokens,
            )

        answerer = policy_answerer(
            policy,
            tools.toolbox,
            settings=settings,
            mode=CotMode.SHORT,  # as in training
            sampling=Sampling(temperature=config.eval.temperature, top_p=config.eval.top_p),
            seed=config.seed,
        )
        yield answerer, read_engine


def _model_answerer(system: str, path: Path, config: Config, tools: _Tools) -> Answerer:
    match system:
        case "scribe":
            return agent_answerer(
                tools.models.agent,
                tools.toolbox,
                settings=config.agent,
                mode=config.sample.mode,
                sampling=Sampling(temperature=config.sample.temperature, top_p=config.sample.top_p),
                seed=config.seed,
            )
        case "closed_book":
            return closed_book_answerer(tools.models.agent)
        case "one_search":
            return one_search_answerer(tools.models.agent, tools.search)
        case _:
            return guess_answerer(list(read_records(path / "qa.jsonl", QA)))


def _add_cost(path: Path, name: str, cost: Cost) -> None:
    costs = read_costs(path)
    costs[name] = costs.get(name, Cost()) + cost
    write_json(path / "eval" / "costs.json", {system: value.model_dump() for system, value in costs.items()})
