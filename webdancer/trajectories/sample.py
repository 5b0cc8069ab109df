"""Samples trajectories for questions by rejection sampling (paper, section 3).

Each question gets up to `max_attempts` episodes until one of them passes the funnel. Every episode is written whatever
became of it. An episode's seed follows from the run's seed, the question and the attempt alone, and whether there is a
further attempt follows from the funnel, so the records do not depend on timing or on where a run was interrupted.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings, SampleSettings
from webdancer.llm.outage import MIN_FAILURES, HeldBack
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.records import QA, CotMode, QASplit, Status, Trajectory
from webdancer.store import RecordWriter, read_records, write_records
from webdancer.synth.bounded import run_bounded
from webdancer.synth.seeds import derive_seed


@dataclass(slots=True)
class SampleCounts:
    """How far sampling is."""

    num_questions: int
    """Questions asked for."""
    questions_done: int = 0
    trajectories: int = 0
    accepted: int = 0
    """Questions with a trajectory that passed."""


async def sample_trajectories(
    qas: Sequence[QA],
    *,
    model: ChatModel,
    toolbox: Toolbox,
    agent_settings: AgentSettings,
    settings: SampleSettings,
    seed: int,
    writer: RecordWriter[Trajectory],
    accept: Callable[[Trajectory], Awaitable[bool]],
    on_progress: Callable[[SampleCounts], None] = lambda counts: None,
) -> SampleCounts:
    """Sample until each question has an accepted trajectory or has spent its attempts.

    Args:
        accept: the funnel. After an interruption it is asked again about trajectories that the file holds, and must
            give the same answer.
        writer: episodes that it holds already (`QAID-aN`) are not sampled again.

    Raises:
        StoreError: a trajectory cannot be written.
        ModelError: the model failed for many episodes in a row, or for all; these are not written, so that a resumed run
            samples them anew.
    """
    counts = SampleCounts(len(qas))
    sampler = _Sampler(model, toolbox, agent_settings, settings, seed, writer, accept)

    async def sample_one(qa: QA) -> None:
        is_accepted = await sampler.sample(qa)
        counts.accepted += is_accepted
        counts.questions_done += 1
        counts.trajectories = sampler.num_trajectories
        on_progress(counts)

    await run_bounded(sample_one, qas, concurrency=settings.concurrency)
    await sampler.close()
    counts.trajectories = sampler.num_trajectories
    return counts


class _Sampler:
    """What all questions of one call share."""

    def __init__(
        self,
        model: ChatModel,
        toolbox: Toolbox,
        agent_settings: AgentSettings,
        settings: SampleSettings,
        seed: int,
        writer: RecordWriter[Trajectory],
        accept: Callable[[Trajectory], Awaitable[bool]],
    ) -> None:
        self._model, self._toolbox, self._agent_settings = model, toolbox, agent_settings
        self._settings, self._seed, self._writer, self._accept = settings, seed, writer, accept
        self._known = {trajectory.id: trajectory for trajectory in read_records(writer.path, Trajectory)}
        self._held = HeldBack[Trajectory](
            "episodes",
            most=max(MIN_FAILURES, settings.concurrency),
            seen_working=any(known.status is not Status.MODEL_ERROR for known in self._known.values()),
        )
        self.num_trajectories = 0

    async def sample(self, qa: QA) -> bool:
        """Make attempts at one question; whether one of them was accepted."""
        for number in range(1, self._settings.max_attempts + 1):
            if await self._attempt(qa, number):
                return True
        return False

    async def _attempt(self, qa: QA, number: int) -> bool:
        self.num_trajectories += 1
        trajectory = self._known.pop(f"{qa.id}-a{number}", None)
        if trajectory is None:
            trajectory = await self._episode(qa, number)
            if trajectory.status is Status.MODEL_ERROR:
                self._held.add(trajectory, trajectory.detail)
                return False
            await self._write(self._held.succeed())
            self._writer.append(trajectory)
        return await self._accept(trajectory)

    async def close(self) -> None:
        """Write the failures that are still held back."""
        await self._write(self._held.close())

    async def _write(self, failed: Sequence[Trajectory]) -> None:
        for trajectory in failed:  # all before the first is judged: a later attempt must not come into the file first
            self._writer.append(trajectory)
        for trajectory in failed:
            await self._accept(trajectory)

    async def _episode(self, qa: QA, number: int) -> Trajectory:
        return await run_episode(
            self._model,
            self._toolbox,
            trajectory_id=f"{qa.id}-a{number}",
            qa_id=qa.id,
            question=qa.question,
            settings=self._agent_settings,
            mode=self._settings.mode,
            sampling=Sampling(temperature=self._settings.temperature, top_p=self._settings.top_p),
            seed=derive_seed(self._seed, "sample", qa.id, number),
            omit_thoughts=self._settings.mode is CotMode.LONG,
        )


def split_after_funnel(
    qas: Sequence[QA], trajectories: Sequence[Trajectory], kept: set[str], *, out: Path
) -> tuple[int, int]:
    """Write `sft.jsonl` (the kept trajectories) and `rl_qa.jsonl` (the questions without one); returns their sizes.

    A question of the SFT share whose every attempt fell in the funnel is not lost: it joins those for RL.

    Args:
        qas: all training questions.
        kept: ids of the trajectories that passed the whole funnel.
    """
    passed = sorted((t for t in trajectories if t.id in kept), key=lambda trajectory: trajectory.id)
    learnt = {trajectory.qa_id for trajectory in passed}
    for_rl = [qa.model_copy(update={"split": QASplit.RL}) for qa in qas if qa.id not in learnt]
    return write_records(out / "sft.jsonl", passed), write_records(out / "rl_qa.jsonl", for_rl)
