"""The funnel: validity, correctness, quality rules, quality critic (paper, section 3.2).

A trajectory goes through the stages in this order and stops at the first that drops it. Every stage that it reached leaves a
verdict on disk, kept or dropped, with its reason; whoever runs the funnel again on the same file asks only for what is missing.
The correctness stage goes by the judge role and records the normalised exact match beside it.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, StrictBool

from webdancer.config import FunnelSettings
from webdancer.errors import ModelError, StoreError
from webdancer.judge.llm_judge import judge
from webdancer.llm.outage import MIN_FAILURES
from webdancer.llm.prompts import fill_prompt
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.llm.structured import ask_json
from webdancer.records import QA, Step, Trajectory, Verdict, VerdictReason, VerdictStage
from webdancer.store import RecordWriter, read_records
from webdancer.trajectories.rules import Finding, check_rules, check_validity

_LINE_END = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_HEADING = re.compile(
    rf"(?:^|(?<=[{_LINE_END}]))"
    rf"(?=(?:[^\S{_LINE_END}]|[\u200b-\u200f\u2060\ufeff])*(?:(?:Thought|Call|Result)\s+\d+\s*:|Answer\s*:))"
)
OnVerdict = Callable[[Verdict], None]
_MAX_REASKS = 2
_MAX_OBSERVATION_CHARS = 6000
"""Characters of one observation that the critic is shown."""


class FunnelResult(NamedTuple):
    """What became of the trajectories."""

    num_trajectories: int
    kept: tuple[str, ...]
    """Ids of the trajectories that passed every stage, sorted."""
    dropped: dict[VerdictStage, dict[VerdictReason, int]]
    """How many fell at which stage for which reason; stages at which none fell are left out."""


class _CriticReply(BaseModel):
    """The critic's word on the four points of the paper."""

    comment: str = ""
    non_redundant: StrictBool
    goal_aligned: StrictBool
    logical: StrictBool
    accurate: StrictBool


async def run_funnel(
    trajectories: Sequence[Trajectory],
    qas: Mapping[str, QA],
    *,
    judge_model: ChatModel,
    critic_model: ChatModel | None,
    settings: FunnelSettings,
    out: Path,
    concurrency: int = 32,
    on_verdict: OnVerdict | None = None,
) -> FunnelResult:
    """Put every trajectory through the funnel; verdicts are appended to the file `out` as they come.

    Args:
        trajectories: their ids are unique.
        qas: the questions by id.
        judge_model: the judge role.
        critic_model: the critic role; without one, or with `use_critic` off, the rules are the last stage.
        settings: thresholds of the rules.
        out: the verdicts' file; verdicts that it holds already are taken as they are.
        concurrency: trajectories under way at once.
        on_verdict: called for each verdict, those found in the file first.

    Raises:
        StoreError: a trajectory's question is not among `qas`, or `out` is being written by another process.
    """
    for trajectory in trajectories:
        if trajectory.qa_id not in qas:
            raise StoreError(
                f"trajectory {trajectory.id!r}: its question {trajectory.qa_id!r} is not among the questions"
            )
    with RecordWriter(out, Verdict) as writer:
        funnel = Funnel(judge_model, critic_model, settings, writer, on_verdict)
        slots = asyncio.Semaphore(concurrency)

        async def run(trajectory: Trajectory) -> Verdict:
            async with slots:
                return await funnel.run(trajectory, qas[trajectory.qa_id])

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(trajectory)) for trajectory in trajectories]
    return summarise_verdicts([task.result() for task in tasks])


def summarise_verdicts(last_verdicts: Sequence[Verdict]) -> FunnelResult:
    """What became of trajectories, from the last verdict of each."""
    kept = sorted(verdict.trajectory_id for verdict in last_verdicts if verdict.keep)
    counts = Counter((verdict.stage, verdict.reason) for verdict in last_verdicts if not verdict.keep)
    dropped: dict[VerdictStage, dict[VerdictReason, int]] = {}
    for stage, reason in ((stage, reason) for stage in VerdictStage for reason in VerdictReason):
        if counts[stage, reason]:
            dropped.setdefault(stage, {})[reason] = counts[stage, reason]
    return FunnelResult(len(last_verdicts), tuple(kept), dropped)


class Funnel:
    """The stages over one verdicts' file, a trajectory at a time.

    Args:
        judge_model: the judge role.
        critic_model: the critic role; without one, or with `use_critic` off, the rules are the last stage.
        settings: thresholds of the rules.
        writer: the verdicts' file; verdicts that it holds already are taken as they are.
        on_verdict: called for each verdict, those found in the file too.
    """

    def __init__(
        self,
        judge_model: ChatModel,
        critic_model: ChatModel | None,
        settings: FunnelSettings,
        writer: RecordWriter[Verdict],
        on_verdict: OnVerdict | None = None,
    ) -> None:
        self._judge_model, self._settings = judge_model, settings
        self._critic_model = critic_model if settings.use_critic else None
        self._writer, self._on_verdict = writer, on_verdict
        self._known = {verdict.id: verdict for verdict in read_records(writer.path, Verdict)}
        self._num_failures = Counter[VerdictStage]()

    async def run(self, trajectory: Trajectory, qa: QA) -> Verdict:
        """The verdict of the last stage that the trajectory reached.

        Raises:
            ModelError: the judge or the critic failed for `MIN_FAILURES` trajectories in a row.
        """
        stages = [stage for stage in VerdictStage if stage is not VerdictStage.CRITIC or self._critic_model is not None]
        for stage in stages:
            verdict = await self._known_or_new(stage, trajectory, qa)
            if self._on_verdict is not None:
                self._on_verdict(verdict)
            if not verdict.keep:
                break
        return verdict

    async def _known_or_new(self, stage: VerdictStage, trajectory: Trajectory, qa: QA) -> Verdict:
        known = self._known.get(f"{trajectory.id}/{stage.value}")
        if known is not None:
            return known
        verdict = await self._verdict(stage, trajectory, qa)
        self._check_outage(verdict)
        self._writer.append(verdict)
        self._known[verdict.id] = verdict
        return verdict

    def _check_outage(self, verdict: Verdict) -> None:
        """Stop where a model fails again and again: every further trajectory would be dropped for nothing."""
        if verdict.reason not in (VerdictReason.JUDGE_FAILED, VerdictReason.CRITIC_FAILED):
            self._num_failures[verdict.stage] = 0
            return
        self._num_failures[verdict.stage] += 1
        if self._num_failures[verdict.stage] >= MIN_FAILURES:
            raise ModelError(
                f"the model of the stage {verdict.stage.value!r} failed for {MIN_FAILURES} trajectories in a row, last for "
                f"{verdict.trajectory_id}: {verdict.detail}. Mend the endpoint and run the same command again"
            )

    async def _verdict(self, stage: VerdictStage, trajectory: Trajectory, qa: QA) -> Verdict:
        match stage:
            case VerdictStage.VALIDITY:
                return make_verdict(trajectory, stage, check_validity(trajectory))
            case VerdictStage.CORRECTNESS:
                return await self._correctness(trajectory, qa)
            case VerdictStage.RULES:
                return make_verdict(trajectory, stage, check_rules(trajectory, self._settings))
            case VerdictStage.CRITIC:
                return await self._critic(trajectory)

    async def _correctness(self, trajectory: Trajectory, qa: QA) -> Verdict:
        stage, answer = VerdictStage.CORRECTNESS, trajectory.answer or ""
        try:
            judgement = await judge(
                self._judge_model, question=qa.question, reference=qa.answer, answer=answer, max_reasks=_MAX_REASKS
            )
        except ModelError as error:
            return make_verdict(trajectory, stage, Finding(VerdictReason.JUDGE_FAILED, str(error)))
        wrong = f"got {answer[:200]!r}, expected {qa.answer[:200]!r}"
        finding = None if judgement.correct else Finding(VerdictReason.WRONG_ANSWER, wrong)
        verdict = make_verdict(trajectory, stage, finding)
        return verdict.model_copy(update={"judgement": judgement, "score": float(judgement.correct)})

    async def _critic(self, trajectory: Trajectory) -> Verdict:
        stage = VerdictStage.CRITIC
        assert self._critic_model is not None
        prompt = fill_prompt("critic", question=trajectory.question, trajectory=format_for_critic(trajectory))
        sampling = Sampling(temperature=0.0)
        try:
            reply = await ask_json(self._critic_model, prompt, _CriticReply, sampling=sampling, max_reasks=_MAX_REASKS)
        except ModelError as error:
            return make_verdict(trajectory, stage, Finding(VerdictReason.CRITIC_FAILED, str(error)))
        points = {
            VerdictReason.REDUNDANT: reply.non_redundant,
            VerdictReason.OFF_GOAL: reply.goal_aligned,
            VerdictReason.ILLOGICAL: reply.logical,
            VerdictReason.INACCURATE: reply.accurate,
        }
        failed = next((reason for reason, holds in points.items() if not holds), None)
        verdict = make_verdict(trajectory, stage, None if failed is None else Finding(failed, reply.comment))
        return verdict.model_copy(update={"score": sum(points.values()) / len(points), "detail": reply.comment})


def make_verdict(trajectory: Trajectory, stage: VerdictStage, finding: Finding | None) -> Verdict:
    """The verdict of a stage: dropped for what was found, or passed."""
    return Verdict(
        id=f"{trajectory.id}/{stage.value}",
        trajectory_id=trajectory.id,
        stage=stage,
        keep=finding is None,
        reason=VerdictReason.PASSED if finding is None else finding.reason,
        detail="" if finding is None else finding.detail,
    )


def format_for_critic(trajectory: Trajectory) -> str:
    """The trajectory as the critic reads it: parts headed `Thought N:`, `Call N:`, `Result N:`, at the end `Answer:`."""
    parts = [part for number, step in enumerate(trajectory.steps, 1) for part in _format_step(number, step)]
    return "\n\n".join([*parts, f"Answer:\n{_quoted(trajectory.answer or '')}"])


def _quoted(text: str) -> str:
    """The text, in which no line (of a page, say) can be taken for the heading of a part."""
    return _HEADING.sub("> ", text)


def _format_step(number: int, step: Step) -> list[str]:
    """The parts of one step; a long result is cut, and says so."""
    parts = [f"Thought {number}:\n{_quoted(step.thought)}"]
    if step.tool is not None:
        parts.append(f"Call {number}:\n{step.tool} {_quoted(json.dumps(step.arguments, ensure_ascii=False))}")
    if step.observation is not None:
        shown = step.observation[:_MAX_OBSERVATION_CHARS]
        cut = len(step.observation) - len(shown)
        parts.append(f"Result {number}:\n{_quoted(shown)}" + (f"\n[{cut} more characters]" if cut else ""))
    return parts
