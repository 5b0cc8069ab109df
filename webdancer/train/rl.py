"""Reinforcement learning with DAPO (paper, section 4): roll out, keep the groups that teach something, update, and again.

A step is one batch of rollouts and `updates_per_step` optimizer steps on it; then the engine takes over the new weights. It
needs questions and answers only. Under `accelerate launch` each process rolls out its share of the questions with an engine of
its own, and the updates add up over all of them, however uneven the shares.

Departures from the paper's set-up (32 nodes, 16 rollouts a question): sizes are settings.

`out/` gets the checkpoint with its tokenizer, `metrics.jsonl`, `tensorboard/`, `rollouts.jsonl` (some rollouts to read),
`state/` (model, optimizer, random state, position in the questions) and `groups/` (rollouts since that state). After kill -9
the same call goes on from the saved state; rollouts that were finished since then are not made again, only their updates are.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils import gather_object

from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings, PolicySettings, RlSettings
from webdancer.errors import ConfigError, TrainError
from webdancer.llm.protocol import ChatModel
from webdancer.records import QA, Sample
from webdancer.train.checkpoint import fingerprint, read_state, start_of, write_state
from webdancer.train.generation import TrainableEngine
from webdancer.train.learner import Learner, open_learner
from webdancer.train.model import device_of
from webdancer.train.policy import EnginePolicy, new_engine
from webdancer.train.rl_batch import Collector, RolloutBatch
from webdancer.train.rl_metrics import RlRecords, kept_rollouts, rollout_metrics
from webdancer.train.rollout import CUT_OFF, QuestionOrder, Roller
from webdancer.train.tokens import ChatTokens
from webdancer.train.tool_cache import CachedToolbox
from webdancer.train.update import Updater, UpdateResult, split_groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RlResult:
    """What a training came to."""

    out: Path
    """Folder of the Hugging Face checkpoint."""
    num_steps: int
    """Batches of rollouts."""
    num_skipped_steps: int
    """Of those: batches in which no group had a signal, so that nothing was trained."""
    num_updates: int
    """Optimizer steps."""
    num_rollouts: int
    num_sampled_tokens: int
    seconds: float
    solve_rate: float
    """Share of right answers among the last step's rollouts."""


class RlProgress(NamedTuple):
    """How far a training is."""

    step: int
    num_steps: int
    solve_rate: float
    """Share of right answers among the rollouts of the last finished step; 0 before the first."""
    reward: float
    """Mean of the same rollouts."""
    num_groups: int
    """Groups of the step under way that this process has finished; 0 when a step is over."""


@dataclass(slots=True)
class _Progress:
    """What a state file holds beside the learner."""

    step: int = 0
    position: int = 0
    """In the endless order of questions."""
    num_skipped_steps: int = 0
    num_updates: int = 0
    num_rollouts: int = 0
    num_sampled_tokens: int = 0
    seconds: float = 0.0
    solve_rate: float = 0.0
    reward: float = 0.0


async def train_rl(
    qas: Sequence[QA],
    *,
    base: Path,
    out: Path,
    toolbox: Toolbox,
    judge_model: ChatModel,
    agent_settings: AgentSettings,
    settings: RlSettings,
    policy: PolicySettings,
    seed: int,
    on_progress: Callable[[RlProgress], None] = lambda progress: None,
) -> RlResult:
    """Train the checkpoint at `base` on by DAPO and write it to `out`; a second call goes on where the first was cut off.

    Args:
        qas: the questions, none of them used in SFT.
        toolbox: makes the rollouts' tool calls; identical calls are made once.
        judge_model: the judge role.

    Raises:
        TrainError: no questions, most rollouts of a round were dropped, no gradient of a step was finite, or a state in `out` of
            another training.
        ConfigError: there is no model at `base`, it has no ChatML tokenizer or one that it does not fit, its architecture is
            not supported, the device is missing or has no room for the engine's cache, or it is a GPU where the settings
            want a deterministic training.
        StoreError: a state or a rollout cannot be written or read.
    """
    if not qas:
        raise TrainError("there are no questions to train on; expected at least 1")
    if settings.deterministic and device_of(policy).type != "cpu":
        raise ConfigError(
            "rl.deterministic = true works on the CPU only: CUDA has no deterministic kernel for what sampling needs; "
            'set it to false, or policy.device to "cpu"'
        )
    tokens = ChatTokens.load(base)
    learner = open_learner(base, tokens.tokenizer, policy=policy, settings=settings, seed=seed)
    whole, device = learner.whole_model(everywhere=True), learner.accelerator.device
    with _deterministic_kernels(settings.deterministic):
        async with new_engine(whole, tokens, policy, device=device, deterministic=settings.deterministic) as engine:
            cached = CachedToolbox(toolbox)
            roller = Roller(
                EnginePolicy(engine, tokens, name=str(base)),
                cached,
                judge_model,
                agent_settings=agent_settings,
                settings=settings,
                max_context=policy.max_context,
                max_batch=policy.max_batch,
                seed=seed,
            )
            order = QuestionOrder(qas, seed=seed)
            training = _Training(learner, engine, cached, roller, order, settings, out, on_progress)
            shown = (qa.model_dump_json(include={"id", "question", "answer"}) for qa in order.qas)
            data = [agent_settings.model_dump_json(), *shown]
            await training.run(fingerprint=fingerprint(settings, seed=seed, start=start_of(base, policy), data=data))
    learner.save_checkpoint(tokens.tokenizer, out)
    return training.result()


class _Training:
    """The loop over steps."""

    def __init__(
        self,
        learner: Learner,
        engine: TrainableEngine,
        toolbox: CachedToolbox,
        roller: Roller,
        order: QuestionOrder,
        settings: RlSettings,
        out: Path,
        on_progress: Callable[[RlProgress], None],
    ) -> None:
        self._learner, self._engine, self._toolbox = learner, engine, toolbox
        self._accelerator, self._settings = learner.accelerator, settings
        self._out, self._on_progress = out, on_progress
        self._updater = Updater(learner, settings=settings, accelerator=learner.accelerator)
        self._num_groups = 0
        self._collector = Collector(
            roller,
            order,
            settings=settings,
            accelerator=learner.accelerator,
            folder=out / "groups",
            on_group=self._count_group,
        )
        self._progress = _Progress()

    async def run(self, *, fingerprint: str) -> None:
        """Go through the steps that are left."""
        progress, settings = self._progress, self._settings
        self._resume(fingerprint)
        self._engine.sync(self._learner.whole_model(everywhere=True))
        with RlRecords(self._out, resume_step=progress.step, accelerator=self._accelerator) as records:
            while progress.step < settings.num_steps:
                started = time.perf_counter()
                batch = await self._collector.collect(
                    progress.step, progress.position, policy_version=progress.num_updates
                )
                metrics = self._learn(batch, started)
                progress.step, progress.position = progress.step + 1, batch.next_position
                progress.seconds += time.perf_counter() - started
                kept = kept_rollouts(batch, step=progress.step, num_groups=settings.num_kept_rollouts)
                records.write(progress.step, {**metrics, "seconds": progress.seconds}, gather_object(kept))
                if progress.step == settings.num_steps or progress.step % settings.save_every_steps == 0:
                    self._save(fingerprint)
                self._num_groups = 0
                self._report()

    def _learn(self, batch: RolloutBatch, started: float) -> dict[str, float]:
        """Update on a batch, give the engine the new weights; the step's metrics."""
        progress = self._progress
        rollout_s = time.perf_counter() - started
        metrics = rollout_metrics(batch.summaries, num_trained=len(batch.trained), num_rounds=batch.num_rounds)
        num_sampled = sum(summary.num_sampled for summary in batch.summaries)
        update_started = time.perf_counter()
        result = self._update(batch)
        sync_started = time.perf_counter()
        self._engine.sync(self._learner.whole_model(everywhere=True))
        ended = time.perf_counter()
        progress.num_updates += result.num_updates
        progress.num_skipped_steps += result.num_updates == 0
        progress.num_rollouts += int(metrics["rollouts"])
        progress.num_sampled_tokens += num_sampled
        progress.solve_rate, progress.reward = metrics["solve_rate"], metrics["reward"]
        return {
            **metrics,
            **result.metrics,
            "updates": progress.num_updates,
            "skipped_steps": progress.num_skipped_steps,
            "trained_tokens": result.num_tokens,
            "seconds_rollout": rollout_s,
            **self._own_rollout_numbers(),
            "seconds_update": sync_started - update_started,
            "seconds_sync": ended - sync_started,
            "sampled_tokens_per_s": num_sampled / rollout_s,
            "trained_tokens_per_s": result.num_tokens / (sync_started - update_started),
        }

    def _update(self, batch: RolloutBatch) -> UpdateResult:
        """The optimizer steps on this process's share of a batch."""
        parts: list[list[Sample]] = []
        for positions in split_groups(batch.trained, num_parts=self._settings.updates_per_step):
            groups = [batch.own[position] for position in positions if position in batch.own]
            samples = [rollout.sample for group in groups for rollout in group.rollouts]
            if self._settings.overlong == "filter":
                samples = [sample for sample in samples if sample.status not in CUT_OFF]
            parts.append(samples)
        return self._updater.update(parts, learning_rate=self._learning_rate())

    def _learning_rate(self) -> float:
        """Constant after a linear warm-up over the first steps."""
        warmup = self._settings.warmup_steps
        share = min(1.0, (self._progress.step + 1) / warmup) if warmup else 1.0
        return self._settings.learning_rate * share

    def _own_rollout_numbers(self) -> dict[str, float]:
        """Since the step before, of this process: where a rollout's seconds go (tools and engine overlap), tool calls."""
        engine, tools = asdict(self._engine.stats), asdict(self._toolbox.stats)
        self._engine.stats, self._toolbox.stats = type(self._engine.stats)(), type(self._toolbox.stats)()
        return {
            "seconds_tools": tools["busy_s"],
            "seconds_prefill": engine["prefill_s"],
            "seconds_decode": engine["decode_s"],
            "tool_calls": tools["num_calls"],
            "tool_calls_cached": tools["num_cached"],
            "pages_unsummarised": tools["num_unsummarised"],
        }

    def _count_group(self) -> None:
        self._num_groups += 1
        self._report()

    def _report(self) -> None:
        progress = self._progress
        self._on_progress(
            RlProgress(progress.step, self._settings.num_steps, progress.solve_rate, progress.reward, self._num_groups)
        )

    def _save(self, fingerprint: str) -> None:
        learner = self._learner.state_dict()
        if self._accelerator.is_main_process:
            values = {
                **asdict(self._progress),
                "learner": learner,
                "rng": torch.get_rng_state(),
                "fingerprint": fingerprint,
            }
            write_state(self._out / "state", self._progress.step, values)
            self._collector.forget_before(self._progress.step)
        self._accelerator.wait_for_everyone()

    def _resume(self, fingerprint: str) -> None:
        """Take up the newest state; where there is none, save the start, so that rollouts are never those of other settings."""
        saved = read_state(self._out / "state", mapped=self._learner.is_sharded)
        self._accelerator.wait_for_everyone()  # nobody writes before all have read
        if saved is None:
            self._collector.forget_before(sys.maxsize)
            self._save(fingerprint)
            return
        values = saved.values
        if values.pop("fingerprint") != fingerprint:
            raise TrainError(
                f"{self._out} holds a training on other questions, with other settings or of another base; choose another "
                "folder, or remove it to start anew"
            )
        self._learner.load_state_dict(values.pop("learner"))
        torch.set_rng_state(values.pop("rng"))
        for name, value in values.items():
            setattr(self._progress, name, value)
        logger.info("training goes on after step %d of %d", self._progress.step, self._settings.num_steps)

    def result(self) -> RlResult:
        """What it came to."""
        progress = self._progress
        return RlResult(
            out=self._out,
            num_steps=progress.step,
            num_skipped_steps=progress.num_skipped_steps,
            num_updates=progress.num_updates,
            num_rollouts=progress.num_rollouts,
            num_sampled_tokens=progress.num_sampled_tokens,
            seconds=progress.seconds,
            solve_rate=progress.solve_rate,
        )


@contextmanager
def _deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Only such kernels of torch as give the same bits for the same numbers, where wanted."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
