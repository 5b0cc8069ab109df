"""What a batch's groups come to: its metrics, and how many more questions a further round asks."""

from pathlib import Path

import pytest

from webdancer.config import RlSettings
from webdancer.records import Status
from webdancer.train.dapo import GroupSignal
from webdancer.train.rl_batch import Collector, GroupSummary
from webdancer.train.rl_metrics import rollout_metrics
from webdancer.train.rollout import DropReason


def summary(position: int, signal: GroupSignal | None, **values: object) -> GroupSummary:
    plain = {
        "num_rollouts": 4, "num_dropped": {}, "statuses": {Status.ANSWERED: 4}, "reward": 2.0, "format": 4.0, "answer": 2.0,
        "num_tokens": 400, "num_sampled": 100, "num_turns": 12, "num_actions": 8,
    }  # fmt: skip
    return GroupSummary(position=position, signal=signal, **{**plain, **values})  # type: ignore[arg-type]


def test_metrics_count_all_groups_that_were_asked_for():
    found = [
        summary(0, GroupSignal.MIXED),
        summary(1, GroupSignal.ALL_RIGHT, answer=4.0, reward=4.0),
        summary(2, GroupSignal.ALL_WRONG, answer=0.0, reward=0.0, statuses={Status.STEP_LIMIT: 3, Status.ANSWERED: 1}),
        summary(3, None, num_rollouts=0, answer=0.0, reward=0.0, format=0.0, num_tokens=0, num_sampled=0, num_turns=0,
                num_actions=0, statuses={}, num_dropped={DropReason.TOOL_FAILED: 4}),
    ]  # fmt: skip
    metrics = rollout_metrics(found, num_trained=1, num_rounds=2)
    assert metrics["solve_rate"] == 0.5
    assert (metrics["tokens_per_episode"], metrics["turns_per_episode"], metrics["actions_per_episode"]) == (100, 3, 2)
    assert (metrics["groups_all_right"], metrics["groups_all_wrong"], metrics["groups_too_small"]) == (1, 1, 1)
    assert (metrics["status_step_limit"], metrics["dropped_tool_failed"], metrics["dropped_judge_failed"]) == (3, 4, 0)


@pytest.mark.parametrize(
    ("num_mixed", "num_asked", "num_rounds", "size"),
    [
        (8, 8, 1, 0),  # full
        (4, 8, 1, 8),  # 4 missing, half of the groups had a signal
        (6, 8, 1, 3),  # 2 missing at three in four: 2.67
        (1, 8, 1, 16),  # 7 missing at one in eight would be 56: bound at two batches
        (0, 8, 1, 8),  # nothing known of the rate: one more batch
        (4, 16, 3, 0),  # two extra rounds are spent
    ],
)
def test_a_further_round_is_sized_by_what_is_missing_and_the_rate_seen(
    num_mixed: int, num_asked: int, num_rounds: int, size: int, tmp_path: Path
):
    settings = RlSettings(groups_per_step=8, max_extra_rounds=2)
    collector = Collector(None, None, settings=settings, accelerator=None, folder=tmp_path)  # type: ignore[arg-type]
    found = [summary(n, GroupSignal.MIXED if n < num_mixed else GroupSignal.ALL_WRONG) for n in range(num_asked)]
    assert collector._next_size(found, num_rounds) == size
