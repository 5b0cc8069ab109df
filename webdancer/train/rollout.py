"""Rollouts: the policy answers a question G times with real tool calls, and the judge says what it earned (paper, section 4).

Reward = 0.1 · format + 0.9 · answer. The format scores 1 where the funnel's validity check finds nothing: every turn followed
the format, every call was valid JSON of a known tool, and the episode ended with an answer of the policy's own accord. An
episode that did not end so is wrong. What failed through no fault of the policy (a tool that was down or too slow, the judge,
the engine, a machine that was too slow for the episode's time) is no rollout: it is dropped and counted, and the group goes on
without it.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.calls.scope import call_scope
from webdancer.config import AgentSettings, RlSettings
from webdancer.errors import ModelError
from webdancer.judge.llm_judge import judge
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.records import QA, CotMode, Record, Reward, Sample, Status, ToolError, Trajectory
from webdancer.synth.seeds import derive_rng, derive_seed
from webdancer.train.dapo import GroupSignal, group_advantages, group_signal, overlong_punishment
from webdancer.trajectories.rules import check_validity

MIN_ROLLOUTS = 2
"""A smaller group has nothing to be compared with."""
CUT_OFF = frozenset({Status.STEP_LIMIT, Status.TOKEN_LIMIT, Status.CONTEXT_FULL})
"""Endings of episodes that a limit cut off: what overlong filtering keeps out of the loss."""
_NEVER_S = 1e7


class SampledTokens(Protocol):
    """The token side of an episode; three sequences of one length."""

    @property
    def token_ids(self) -> Sequence[int]: ...
    @property
    def mask(self) -> Sequence[bool]: ...
    @property
    def logprobs(self) -> Sequence[float]: ...


class RolloutEpisode(ChatModel, Protocol):
    """The policy in one episode."""

    def sequence(self) -> SampledTokens:
        """All tokens of the episode so far."""
        ...

    def close(self) -> None:
        """Free what the engine holds of the episode."""
        ...


class RolloutPolicy(Protocol):
    """What rollouts need of a policy: a chat model per episode that keeps its tokens."""

    def episode(self, key: str) -> RolloutEpisode: ...


class DropReason(StrEnum):
    """Why an episode is no rollout."""

    TOOL_FAILED = "tool_failed"
    TOOL_TIMEOUT = "tool_timeout"
    JUDGE_FAILED = "judge_failed"
    MODEL_ERROR = "model_error"
    TIME_LIMIT = "time_limit"


_STATUS_FAULTS = {Status.MODEL_ERROR: DropReason.MODEL_ERROR, Status.TIME_LIMIT: DropReason.TIME_LIMIT}
_TOOL_FAULTS = {ToolError.TOOL_FAILED: DropReason.TOOL_FAILED, ToolError.TOOL_TIMEOUT: DropReason.TOOL_TIMEOUT}


class Rollout(Record):
    """One episode as text and as tokens."""

    trajectory: Trajectory
    sample: Sample


class RolloutGroup(Record):
    """The rollouts of one question in one epoch, advantages included."""

    id: str
    position: int
    """Of the question in the run's endless order of questions."""
    rollouts: tuple[Rollout, ...]
    num_dropped: dict[DropReason, int]

    @property
    def signal(self) -> GroupSignal | None:
        """What its answers can teach; None where fewer than two rollouts are left."""
        if len(self.rollouts) < MIN_ROLLOUTS:
            return None
        return group_signal([rollout.sample.reward.answer == 1.0 for rollout in self.rollouts])


class Draw(NamedTuple):
    """A question whose turn it is."""

    position: int
    epoch: int
    qa: QA

    @property
    def group_id(self) -> str:
        return f"{self.position:06d}-{self.qa.id}"

    def rollout_id(self, number: int) -> str:
        """The id of one of its rollouts, which is its episode's name at the engine too."""
        return f"{self.group_id}-r{number}"


class QuestionOrder:
    """The questions in an order of their own each epoch, without end; it follows from the seed alone.

    Raises:
        ValueError: there are no questions.
    """

    def __init__(self, qas: Sequence[QA], *, seed: int) -> None:
        if not qas:
            raise ValueError("got no questions to train on, expected at least 1")
        self.qas, self._seed = sorted(qas, key=lambda qa: qa.id), seed
        self._shuffled: tuple[int, list[QA]] = (-1, [])

    def draw(self, position: int) -> Draw:
        """The question at `position`, counted from 0."""
        epoch, place = divmod(position, len(self.qas))
        if self._shuffled[0] != epoch:
            order = list(self.qas)
            derive_rng(self._seed, "rl-order", epoch).shuffle(order)
            self._shuffled = epoch, order
        return Draw(position, epoch, self._shuffled[1][place])


class Roller:
    """Rolls out groups; holds what all of a run's rollouts share.

    Args:
        max_context: tokens of one episode, at which the soft overlong punishment is full.
        max_batch: episodes that the engine holds at once. No more are begun, since the clock of one that waits runs.

    Attributes:
        max_episodes: under way at once.
    """

    def __init__(
        self,
        policy: RolloutPolicy,
        toolbox: Toolbox,
        judge_model: ChatModel,
        *,
        agent_settings: AgentSettings,
        settings: RlSettings,
        max_context: int,
        max_batch: int,
        seed: int,
    ) -> None:
        self._policy, self._toolbox, self._judge_model = policy, toolbox, judge_model
        self._settings, self._max_context, self._seed = settings, max_context, seed
        changes: dict[str, object] = {"force_answer": False}
        self.max_episodes = min(settings.concurrency, max_batch)
        if settings.deterministic:
            changes["max_seconds"] = _NEVER_S  # an episode's end may not hang on the machine's speed
            self.max_episodes = max(self.max_episodes, settings.rollouts_per_group)  # the smallest wave
        self._agent_settings = agent_settings.model_copy(update=changes)
        self._slots = asyncio.Semaphore(self.max_episodes)

    def open(self, draw: Draw) -> list[RolloutEpisode]:
        """The policy's side of a group's episodes, announced to the engine."""
        return [self._policy.episode(draw.rollout_id(number)) for number in range(self._settings.rollouts_per_group)]

    async def group(
        self, draw: Draw, *, policy_version: int, episodes: Sequence[RolloutEpisode] | None = None
    ) -> RolloutGroup:
        """All rollouts of one question, at most `max_episodes` of all groups at once.

        Args:
            episodes: from `open`; without them each is opened when it begins.
        """
        numbers = range(self._settings.rollouts_per_group)
        opened: Sequence[RolloutEpisode | None] = episodes or [None] * len(numbers)
        async with asyncio.TaskGroup() as tasks:
            started = [
                tasks.create_task(self._rollout(draw, number, episode, policy_version))
                for number, episode in zip(numbers, opened, strict=True)
            ]
        results = [task.result() for task in started]
        rollouts = [result for result in results if isinstance(result, Rollout)]
        dropped = Counter(result for result in results if isinstance(result, DropReason))
        return RolloutGroup(
            id=draw.group_id,
            position=draw.position,
            rollouts=tuple(with_advantages(rollouts)),
            num_dropped={reason: dropped[reason] for reason in DropReason if dropped[reason]},
        )

    async def _rollout(
        self, draw: Draw, number: int, episode: RolloutEpisode | None, policy_version: int
    ) -> Rollout | DropReason:
        rollout_id = draw.rollout_id(number)
        async with self._slots:
            if episode is None:
                episode = self._policy.episode(rollout_id)
            try:
                trajectory = await self._episode(episode, draw, number, rollout_id)
                tokens = episode.sequence()
            finally:
                episode.close()
            fault = fault_of(trajectory)
            if fault is not None:
                return fault
            try:
                with call_scope(f"{rollout_id}/reward"):
                    reward = await self._reward(trajectory, draw.qa, num_tokens=len(tokens.token_ids))
            except ModelError:
                return DropReason.JUDGE_FAILED
        sample = Sample(
            id=rollout_id,
            group_id=draw.group_id,
            token_ids=tuple(tokens.token_ids),
            mask=tuple(tokens.mask),
            logprobs=tuple(tokens.logprobs),
            reward=reward,
            status=trajectory.status,
            policy_version=policy_version,
        )
        return Rollout(trajectory=trajectory, sample=sample)

    async def _episode(self, episode: RolloutEpisode, draw: Draw, number: int, rollout_id: str) -> Trajectory:
        settings = self._settings
        return await run_episode(
            episode,
            self._toolbox,
            trajectory_id=rollout_id,
            qa_id=draw.qa.id,
            question=draw.qa.question,
            settings=self._agent_settings,
            mode=CotMode.SHORT,  # a policy writes its thoughts, between tags, in whatever form its teacher had them
            sampling=Sampling(temperature=settings.temperature, top_p=settings.top_p),
            seed=derive_seed(self._seed, "rollout", draw.qa.id, draw.epoch, number),
        )

    async def _reward(self, trajectory: Trajectory, qa: QA, *, num_tokens: int) -> Reward:
        """Format, answer, and the soft overlong punishment where the settings ask for it.

        Raises:
            ModelError: the judge failed.
        """
        is_right, judge_text = False, ""
        if trajectory.status is Status.ANSWERED:
            judgement = await judge(
                self._judge_model, question=qa.question, reference=qa.answer, answer=trajectory.answer or ""
            )
            is_right, judge_text = judgement.correct, judgement.text
        format_score, answer_score = float(check_validity(trajectory) is None), float(is_right)
        weight = self._settings.format_weight
        total = weight * format_score + (1 - weight) * answer_score
        if self._settings.overlong == "soft":
            buffer, most = self._settings.overlong_buffer, self._max_context
            # `num_tokens` ends at the policy's last; where there was no room for another turn, an observation took it.
            length = most if trajectory.status is Status.CONTEXT_FULL else num_tokens
            total += overlong_punishment(length, max_tokens=most, buffer=buffer)
        return Reward(total=total, format=format_score, answer=answer_score, judge_text=judge_text)


def fault_of(trajectory: Trajectory) -> DropReason | None:
    """What failed in an episode through no fault of the policy; a page that does not exist is the policy's own mistake."""
    if trajectory.status in _STATUS_FAULTS:
        return _STATUS_FAULTS[trajectory.status]
    return next((_TOOL_FAULTS[step.error] for step in trajectory.steps if step.error in _TOOL_FAULTS), None)


def with_advantages(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts of one group, each with its advantage among them; a lone one has none."""
    if len(rollouts) < MIN_ROLLOUTS:
        return list(rollouts)
    advantages = group_advantages([rollout.sample.reward.total for rollout in rollouts])
    return [
        rollout.model_copy(update={"sample": rollout.sample.model_copy(update={"advantage": advantage})})
        for rollout, advantage in zip(rollouts, advantages, strict=True)
    ]
