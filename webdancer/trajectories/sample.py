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
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.records import QA, QASplit, Trajectory
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
    """
    known = {trajectory.id: trajectory for trajectory in read_records(writer.path, Trajectory)}
    counts = SampleCounts(len(qas))

    async def attempt(qa: QA, number: int) -> Trajectory:
        trajectory_id = f"{qa.id}-a{number}"
        if trajectory_id in known:
            return known.pop(trajectory_id)
        trajectory = await run_episode(
            model,
            toolbox,
            trajectory_id=trajectory_id,
            qa_id=qa.id,
            question=qa.question,
            settings=agent_settings,
            mode=settings.mode,
            sampling=Sampling(temperature=settings.temperature, top_p=settings.top_p),
            seed=derive_seed(seed, "sample", qa.id, number),
        )
        writer.append(trajectory)
        return trajectory

    async def sample_one(qa: QA) -> None:
        for number in range(1, settings.max_attempts + 1):
            trajectory = await attempt(qa, number)
            counts.trajectories += 1
            if await accept(trajectory):
                counts.accepted += 1
                break
        counts.questions_done += 1
        on_progress(counts)

    await run_bounded(sample_one, qas, concurrency=settings.concurrency)
    return counts


def split_after_funnel(
    qas: Sequence[QA], trajectories: Sequence[Trajectory], kept: set[str], *, out: Path
) -> tuple[int, int]:
    """Write `sft.jsonl` (the kept trajectories) and `rl_qa.jsonl` (the questions without one); returns their sizes.

    A question of the SFT half whose every attempt fell in the funnel is not lost: it joins those for RL.

    Args:
        qas: all training questions.
        kept: ids of the trajectories that passed the whole funnel.
    """
    passed = sorted((t for t in trajectories if t.id in kept), key=lambda trajectory: trajectory.id)
    learnt = {trajectory.qa_id for trajectory in passed}
    for_rl = [qa.model_copy(update={"split": QASplit.RL}) for qa in qas if qa.id not in learnt]
    return write_records(out / "sft.jsonl", passed), write_records(out / "rl_qa.jsonl", for_rl)
