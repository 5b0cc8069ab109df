"""One batch of rollouts by dynamic sampling (paper, section 4.1): groups all right or all wrong make way for others.

The first round asks as many questions as a batch has groups. Each further round is sized by what is still missing and by the
share of groups that had a signal so far, within bounds; what it finds above the batch's size is trained on as well, since it
is paid for. When the rounds are spent, the groups found have to do.

Finished groups are written to `groups/step-N-rankR.jsonl` at once and found there again after a crash, by whichever process
their question falls to. In deterministic mode the unit is a wave, because an engine's numbers may hang on what it decodes
together: of a wave that a crash cut off nothing is taken over.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from webdancer.config import RlSettings
from webdancer.errors import TrainError
from webdancer.records import Status
from webdancer.store import RecordWriter, read_records
from webdancer.synth.bounded import run_bounded
from webdancer.train.dapo import GroupSignal
from webdancer.train.rollout import Draw, DropReason, QuestionOrder, Roller, RolloutGroup

_MAX_ROUND_SIZE = 2.0
"""Largest further round, in batches: a rare signal must not make one round endless."""


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """What every process knows of a group, wherever it was rolled out. Sums run over its rollouts."""

    position: int
    signal: GroupSignal | None
    """None: fewer than two rollouts are left."""
    num_rollouts: int
    num_dropped: dict[DropReason, int]
    statuses: dict[Status, int]
    reward: float
    format: float
    answer: float
    num_tokens: int
    """All tokens of the episodes."""
    num_sampled: int
    """Tokens that the policy wrote."""
    num_turns: int
    num_actions: int
    """Tool calls."""

    @classmethod
    def of(cls, group: RolloutGroup) -> "GroupSummary":
        """The summary of a group."""
        samples = [rollout.sample for rollout in group.rollouts]
        trajectories = [rollout.trajectory for rollout in group.rollouts]
        return cls(
            position=group.position,
            signal=group.signal,
            num_rollouts=len(samples),
            num_dropped=group.num_dropped,
            statuses=dict(Counter(sample.status for sample in samples)),
            reward=sum(sample.reward.total for sample in samples),
            format=sum(sample.reward.format for sample in samples),
            answer=sum(sample.reward.answer for sample in samples),
            num_tokens=sum(len(sample.token_ids) for sample in samples),
            num_sampled=sum(sum(sample.mask) for sample in samples),
            num_turns=sum(len(trajectory.steps) for trajectory in trajectories),
            num_actions=sum(step.tool is not None for trajectory in trajectories for step in trajectory.steps),
        )


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """The rollouts of one step."""

    own: dict[int, RolloutGroup]
    """This process's groups by position, those without signal too."""
    summaries: tuple[GroupSummary, ...]
    """All groups of all processes, by position."""
    trained: tuple[int, ...]
    """Positions of the groups to be trained on, in order."""
    num_rounds: int
    next_position: int
    """Where the next step goes on in the order of questions."""


class Collector:
    """Gathers batches; every process has one, and all call it together.

    Args:
        folder: where finished groups are kept until the training's state is saved.
    """

    def __init__(
        self,
        roller: Roller,
        order: QuestionOrder,
        *,
        settings: RlSettings,
        accelerator: Accelerator,
        folder: Path,
        on_group: Callable[[], None] = lambda: None,
    ) -> None:
        self._roller, self._order, self._settings, self._accelerator = roller, order, settings, accelerator
        self._folder, self._on_group = folder, on_group

    async def collect(self, step: int, position: int, *, policy_version: int) -> RolloutBatch:
        """The batch of `step`, whose first question stands at `position`.

        Raises:
            TrainError: of a whole round most rollouts were dropped.
            StoreError: a group cannot be written.
        """
        known = self._known(step)
        self._accelerator.wait_for_everyone()  # nobody writes before all have read
        path = self._folder / f"step-{step:06d}-rank{self._accelerator.process_index}.jsonl"
        own: dict[int, RolloutGroup] = {}
        summaries: list[GroupSummary] = []
        num_rounds, size = 0, self._settings.groups_per_step
        with RecordWriter(path, RolloutGroup) as writer:
            while size > 0:
                draws = [self._order.draw(position + i) for i in range(size)]
                groups = await self._round(draws, known, writer, policy_version)
                own |= {group.position: group for group in groups}
                found = sorted(gather_object([GroupSummary.of(group) for group in groups]), key=lambda s: s.position)
                _check_most_survived(step, found)
                summaries += found
                position, num_rounds = position + size, num_rounds + 1
                size = self._next_size(summaries, num_rounds)
        trained = tuple(summary.position for summary in summaries if self._is_trained(summary))
        return RolloutBatch(own, tuple(summaries), trained, num_rounds, position)

    def forget_before(self, step: int) -> None:
        """Remove the groups of earlier steps, once a saved state makes them useless."""
        for path in self._folder.glob("step-*.jsonl"):
            if int(path.name.split("-")[1]) < step:
                path.unlink(missing_ok=True)  # several processes may be at it

    def _known(self, step: int) -> dict[int, RolloutGroup]:
        """Groups of this step that an earlier run had finished."""
        paths = sorted(self._folder.glob(f"step-{step:06d}-rank*.jsonl"))
        return {group.position: group for path in paths for group in read_records(path, RolloutGroup)}

    def _next_size(self, summaries: Sequence[GroupSummary], num_rounds: int) -> int:
        """Questions of the next round over all processes; 0 ends the batch."""
        settings = self._settings
        if not settings.dynamic_sampling or num_rounds > settings.max_extra_rounds:
            return 0
        num_found = sum(self._is_trained(summary) for summary in summaries)
        missing = settings.groups_per_step - num_found
        largest = math.ceil(_MAX_ROUND_SIZE * settings.groups_per_step)
        wanted = math.ceil(missing * len(summaries) / num_found) if num_found else settings.groups_per_step
        return max(0, min(wanted, largest))

    def _is_trained(self, summary: GroupSummary) -> bool:
        if self._settings.dynamic_sampling:
            return summary.signal is GroupSignal.MIXED
        return summary.signal is not None

    async def _round(
        self,
        draws: Sequence[Draw],
        known: dict[int, RolloutGroup],
        writer: RecordWriter[RolloutGroup],
        policy_version: int,
    ) -> list[RolloutGroup]:
        """This process's share of a round: every num_processes-th question."""
        mine = draws[self._accelerator.process_index :: self._accelerator.num_processes]
        if self._settings.deterministic:
            return await self._waves(mine, known, writer, policy_version)
        groups = {draw.position: known[draw.position] for draw in mine if draw.position in known}

        async def roll(draw: Draw) -> None:
            group = await self._roller.group(draw, policy_version=policy_version)
            groups[draw.position] = group
            self._keep(group, writer)

        await run_bounded(roll, [draw for draw in mine if draw.position not in groups], concurrency=max(1, len(mine)))
        return [groups[draw.position] for draw in mine]

    async def _waves(
        self,
        draws: Sequence[Draw],
        known: dict[int, RolloutGroup],
        writer: RecordWriter[RolloutGroup],
        policy_version: int,
    ) -> list[RolloutGroup]:
        """The same in waves of as many groups as may be under way at once, each wave all or nothing."""
        size = self._roller.max_episodes // self._settings.rollouts_per_group
        groups: list[RolloutGroup] = []
        for start in range(0, len(draws), size):
            wave = draws[start : start + size]
            if all(draw.position in known for draw in wave):
                groups += [known[draw.position] for draw in wave]
                continue
            rolled = await self._wave(wave, policy_version)
            for group in rolled:
                self._keep(group, writer)
            groups += rolled
        return groups

    async def _wave(self, wave: Sequence[Draw], policy_version: int) -> list[RolloutGroup]:
        episodes = {draw: self._roller.open(draw) for draw in wave}  # the engine must know all before the first turn
        rolled: dict[Draw, RolloutGroup] = {}

        async def roll(draw: Draw) -> None:
            rolled[draw] = await self._roller.group(draw, policy_version=policy_version, episodes=episodes[draw])

        await run_bounded(roll, wave, concurrency=len(wave))
        return [rolled[draw] for draw in wave]

    def _keep(self, group: RolloutGroup, writer: RecordWriter[RolloutGroup]) -> None:
        """Write a finished group, unless some of it failed: that is to be tried again after a crash."""
        if not any(group.num_dropped.values()) and group.id not in writer.ids:
            writer.append(group)
        self._on_group()


def _check_most_survived(step: int, summaries: Sequence[GroupSummary]) -> None:
    """Where something is out of order for good, what is left would make steps of little but the policy's failures."""
    reasons: Counter[str] = Counter()
    for summary in summaries:
        reasons.update({reason.value: number for reason, number in summary.num_dropped.items()})
    num_survived = sum(summary.num_rollouts for summary in summaries)
    if reasons.total() <= num_survived:
        return
    told = ", ".join(f"{number} × {reason}" for reason, number in reasons.most_common())
    raise TrainError(
        f"step {step + 1}: of the rollouts of {len(summaries)} questions {reasons.total()} were dropped and {num_survived} came "
        f"to their end ({told}); mend the tools, the judge or the engine and run the same command again"
    )
