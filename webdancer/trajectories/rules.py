"""The funnel's pure rules: what a trajectory's text alone tells of it (paper, section 3.2).

`check_validity` asks whether every turn followed the format and an answer was given; `check_rules` asks for the paper's quality
rules. Each gives the first finding, or None. Departures from the paper: several actions in a turn, an invented
`<tool_response>` and an unknown tool break the format already, so they fall at validity, before a judge is paid for; and a
page visited under a URL that no result showed is no fault of its own, since models rightly know some addresses.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from webdancer.agent.format import Violation, ViolationKind, parse_turn
from webdancer.agent.schemas import SearchCall, check_call
from webdancer.agent.transcript import model_turn
from webdancer.config import FunnelSettings
from webdancer.judge.chinese import CJK
from webdancer.records import Status, Step, Trajectory, VerdictReason

_TOKEN = re.compile(rf"([{CJK}])|[^\W{CJK}]+")
_WORD_WEIGHT, _CHARACTER_WEIGHT = 8, 5
"""Chinese sets no spaces. Its words have 1.6 characters on average, so ten words are sixteen characters: with ten, the full
name of a university or of a ministry, which recurs rightly, would be a repetition."""
_OBSERVATION_HEAD = re.compile(
    r"^(?:A (?:Google )?search for [\"'].+[\"'] found \d+ results?:"
    r"|What \S+ says about the goal \".+\":"
    r"|The useful information in \S+ for user goal .+:"
    r"|Results:\n1\. \[.*\]\(\S+\)"
    r"|Evidence:\n(?:.+\n)+?Summary: .+)$",
    re.MULTILINE,
)
"""First lines of observations, ours and the release's. In the brief shapes a line that tells them apart belongs to the head:
the first result, and the summary. A word like "Results:" alone may stand in any thought."""

REASONS = {
    ViolationKind.INVENTED_OBSERVATION: VerdictReason.INVENTED_OBSERVATION,
    ViolationKind.SEVERAL_ACTIONS: VerdictReason.SEVERAL_ACTIONS,
    ViolationKind.CALL_AND_ANSWER: VerdictReason.SEVERAL_ACTIONS,
    ViolationKind.SEVERAL_ANSWERS: VerdictReason.SEVERAL_ACTIONS,
    ViolationKind.CONTROL_TOKEN: VerdictReason.BROKEN_TAGS,
    ViolationKind.UNCLOSED_TAG: VerdictReason.BROKEN_TAGS,
    ViolationKind.STRAY_TAG: VerdictReason.BROKEN_TAGS,
    ViolationKind.NO_ACTION: VerdictReason.NO_ACTION,
    ViolationKind.INVALID_JSON: VerdictReason.INVALID_JSON,
    ViolationKind.NOT_A_CALL: VerdictReason.INVALID_JSON,
    ViolationKind.UNKNOWN_TOOL: VerdictReason.UNKNOWN_TOOL,
    ViolationKind.INVALID_ARGUMENTS: VerdictReason.INVALID_ARGUMENTS,
    ViolationKind.EMPTY_ANSWER: VerdictReason.NOT_ANSWERED,
    ViolationKind.MISSING_THOUGHT: VerdictReason.NO_THOUGHT,
    ViolationKind.SEVERAL_THOUGHTS: VerdictReason.BROKEN_TAGS,
    ViolationKind.WRONG_ORDER: VerdictReason.BROKEN_TAGS,
    ViolationKind.TEXT_OUTSIDE_TAGS: VerdictReason.TEXT_OUTSIDE_TAGS,
}
"""The reason under which a violation is counted."""


class Finding(NamedTuple):
    """Why a trajectory falls; `detail` names the step, counted from 1, and what stands there."""

    reason: VerdictReason
    detail: str


def check_validity(trajectory: Trajectory) -> Finding | None:
    """The first turn that breaks the format, or that there is no answer of the model's own accord."""
    last = len(trajectory.steps) - 1
    for i, step in enumerate(trajectory.steps):
        violations = _violations(step, trajectory, is_last=i == last)
        if violations:
            kind, detail = violations[0]
            return Finding(REASONS[kind], f"step {i + 1}: {kind.value}: {detail}")
    if trajectory.status is not Status.ANSWERED:
        return Finding(VerdictReason.NOT_ANSWERED, f"the episode ended as {trajectory.status.value}")
    if trajectory.answer is None or not trajectory.steps or trajectory.steps[-1].tool is not None:
        return Finding(VerdictReason.NOT_ANSWERED, "the last step holds no answer")
    return None


def _violations(step: Step, trajectory: Trajectory, *, is_last: bool) -> list[Violation]:
    """What is wrong with one turn; the turn is put through the parser once more, so nothing rests on the episode's word."""
    if step.raw is not None:
        text = step.raw
    elif step.tool is None and not (is_last and trajectory.answer is not None):
        return [Violation(ViolationKind.NO_ACTION, "got neither a tool call nor an answer, expected one of them")]
    else:
        try:
            text = model_turn(step, answer=trajectory.answer).text
        except ValueError as error:
            return [Violation(ViolationKind.STRAY_TAG, str(error))]
    turn = parse_turn(text, mode=trajectory.mode, reasoning=step.thought or None)
    if isinstance(turn, list):
        return turn
    if turn.answer is not None and not is_last:
        return [Violation(ViolationKind.SEVERAL_ANSWERS, "an answer stands before the last step")]
    return []


def check_rules(trajectory: Trajectory, settings: FunnelSettings) -> Finding | None:
    """The first quality rule that the trajectory breaks."""
    return (
        invented_observation(trajectory)
        or repetition(trajectory, settings)
        or repeated_action(trajectory, settings)
        or too_many_errors(trajectory, settings)
        or too_few_actions(trajectory, settings)
    )


def invented_observation(trajectory: Trajectory) -> Finding | None:
    """A thought that holds the first line of a tool's result which no tool had given until then."""
    seen: set[str] = set()
    for number, step in enumerate(trajectory.steps, 1):
        for head in _OBSERVATION_HEAD.findall(step.thought):
            if head.rsplit("\n", 1)[-1] not in seen:
                return Finding(VerdictReason.INVENTED_OBSERVATION, f"step {number}: no tool had said {head[:120]!r}")
        seen.update((step.observation or "").splitlines())
    return None


def repetition(trajectory: Trajectory, settings: FunnelSettings) -> Finding | None:
    """The same run of `ngram` words more than `max_ngram_repeats` times in the thoughts; 1.6 Chinese characters are a word.

    A run does not reach from one thought into the next. Calls and the answer do not count: long names recur there rightly.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for step in trajectory.steps:
        counts.update(ngrams(step.thought, settings.ngram))
    # The first of the most frequent, in the order of the text: the same finding every time.
    gram, count = max(counts.items(), key=lambda item: item[1], default=((), 0))
    if count <= settings.max_ngram_repeats:
        return None
    return Finding(VerdictReason.REPETITION, f"{count} times: {' '.join(gram)!r}")


def ngrams(text: str, size: int) -> Iterator[tuple[str, ...]]:
    """All runs of `size` words, case and punctuation not counted; each Chinese or Japanese character is 5/8 of a word.

    A run ends with the word or character that fills it:

        one two three, size 2:        (one two) (two three)
        我们再看一次页面, size 2:       (我 们 再 看) (们 再 看 一) …      4 × 5/8 ≥ 2
        see 北京大学, size 2:          (see 北 京) (北 京 大 学)          1 + 2 × 5/8 ≥ 2
    """
    tokens = [
        (match.group(), _CHARACTER_WEIGHT if match.group(1) else _WORD_WEIGHT)
        for match in _TOKEN.finditer(text.lower())
    ]
    end, weight = 0, 0
    for start, (_, first) in enumerate(tokens):
        while weight < size * _WORD_WEIGHT:
            if end == len(tokens):
                return
            weight += tokens[end][1]
            end += 1
        yield tuple(token for token, _ in tokens[start:end])
        weight -= first


def repeated_action(trajectory: Trajectory, settings: FunnelSettings) -> Finding | None:
    """The very same call more than `max_action_repeats` times; case, width, spaces and the order of queries do not count."""
    calls = Counter(_call_key(step) for step in trajectory.steps if step.tool is not None)
    call, count = max(calls.items(), key=lambda item: item[1], default=("", 0))
    if count <= settings.max_action_repeats:
        return None
    return Finding(VerdictReason.REPEATED_ACTION, f"{count} times: {call[:200]}")


def _call_key(step: Step) -> str:
    """What makes two calls the same."""
    assert step.tool is not None
    call = check_call(step.tool, step.arguments)
    if isinstance(call, SearchCall):
        return json.dumps(["search", sorted(_folded(query) for query in call.queries), call.year], ensure_ascii=False)
    return json.dumps(["visit", sorted(call.urls), _folded(call.goal)], ensure_ascii=False)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def too_many_errors(trajectory: Trajectory, settings: FunnelSettings) -> Finding | None:
    """More than `max_tool_errors` steps that ended in an error."""
    errors = [step.error.value for step in trajectory.steps if step.error is not None]
    if len(errors) <= settings.max_tool_errors:
        return None
    return Finding(VerdictReason.TOO_MANY_ERRORS, f"{len(errors)} errors: {', '.join(errors)}")


def too_few_actions(trajectory: Trajectory, settings: FunnelSettings) -> Finding | None:
    """Fewer than `min_actions` tool calls; the answer is not counted."""
    num_actions = sum(step.tool is not None for step in trajectory.steps)
    if num_actions >= settings.min_actions:
        return None
    return Finding(VerdictReason.TOO_FEW_ACTIONS, f"{num_actions} tool calls, expected {settings.min_actions} or more")
