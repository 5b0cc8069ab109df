"""What a step of reinforcement learning shows of itself: numbers over all its rollouts, and some rollouts to read."""

from collections import Counter
from collections.abc import Sequence

from webdancer.records import Record, Reward, Status, Trajectory
from webdancer.train.dapo import GroupSignal
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
