"""What a step of reinforcement learning shows of itself: numbers over all its rollouts, and some rollouts to read."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from accelerate import Accelerator

from webdancer.records import Record, Reward, Status, Trajectory
from webdancer.store import RecordWriter, read_records, write_records
from webdancer.train.dapo import GroupSignal
from webdancer.train.metrics import MetricsLog
from webdancer.train.rl_batch import GroupSummary, RolloutBatch
from webdancer.train.rollout import DropReason


class KeptRollout(Record):
    """One rollout with what it earned, in `rollouts.jsonl`."""

    id: str
    """`STEP/ROLLOUT_ID`"""
    step: int
    trajectory: Trajectory
    reward: Reward
    advantage: float


def kept_rollouts(batch: RolloutBatch, *, step: int, num_groups: int) -> list[KeptRollout]:
    """This process's part of the first `num_groups` trained groups of a batch."""
    return [
        KeptRollout(
            id=f"{step}/{rollout.trajectory.id}",
            step=step,
            trajectory=rollout.trajectory,
            reward=rollout.sample.reward,
            advantage=rollout.sample.advantage,
        )
        for position in batch.trained[:num_groups]
        if position in batch.own
        for rollout in batch.own[position].rollouts
    ]


def rollout_metrics(summaries: Sequence[GroupSummary], *, num_trained: int, num_rounds: int) -> dict[str, float]:
    """Means per rollout and counts per step, over all groups that were asked for, trained on or not.

    `solve_rate` is thus the policy's own, not that of the groups that dynamic sampling picked.
    """
    num_rollouts = sum(summary.num_rollouts for summary in summaries)
    per_rollout = max(1, num_rollouts)
    signals = Counter(summary.signal for summary in summaries)
    statuses: Counter[Status] = Counter()
    dropped: Counter[DropReason] = Counter()
    for summary in summaries:
        statuses.update(summary.statuses)
        dropped.update(summary.num_dropped)
    return {
        "solve_rate": sum(summary.answer for summary in summaries) / per_rollout,
        "reward": sum(summary.reward for summary in summaries) / per_rollout,
        "reward_format": sum(summary.format for summary in summaries) / per_rollout,
        "reward_answer": sum(summary.answer for summary in summaries) / per_rollout,
        "tokens_per_episode": sum(summary.num_tokens for summary in summaries) / per_rollout,
        "sampled_tokens_per_episode": sum(summary.num_sampled for summary in summaries) / per_rollout,
        "turns_per_episode": sum(summary.num_turns for summary in summaries) / per_rollout,
        "actions_per_episode": sum(summary.num_actions for summary in summaries) / per_rollout,
        "groups": len(summaries),
        "groups_trained": num_trained,
        "groups_all_right": signals[GroupSignal.ALL_RIGHT],
        "groups_all_wrong": signals[GroupSignal.ALL_WRONG],
        "groups_too_small": signals[None],
        "rounds": num_rounds,
        "rollouts": num_rollouts,
        **{f"status_{status.value}": statuses[status] for status in Status if statuses[status]},
        **{f"dropped_{reason.value}": dropped[reason] for reason in DropReason},
    }


class RlRecords:
    """`metrics.jsonl`, TensorBoard and `rollouts.jsonl`, written by the first process alone.

    What an interrupted run wrote of steps after `resume_step`, which are done again, is cut off.
    """

    def __init__(self, out: Path, *, resume_step: int, accelerator: Accelerator) -> None:
        self._files: tuple[MetricsLog, RecordWriter[KeptRollout]] | None = None
        if accelerator.is_main_process:
            path = out / "rollouts.jsonl"
            write_records(path, [kept for kept in read_records(path, KeptRollout) if kept.step <= resume_step])
            self._files = MetricsLog(out, resume_step=resume_step), RecordWriter(path, KeptRollout)

    def write(self, step: int, metrics: dict[str, float], kept: Sequence[KeptRollout]) -> None:
        """One step's numbers and rollouts."""
        if self._files is not None:
            log, writer = self._files
            log.write(step, metrics)
            for rollout in sorted(kept, key=lambda rollout: rollout.id):
                writer.append(rollout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for file in self._files or ():
            file.close()
