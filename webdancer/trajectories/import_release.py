"""Reads the authors' released trajectories (chat messages, JSON lines) into ours.

A released line holds `messages`: a system prompt, a user prompt that ends with `User: QUESTION`, then the model's turns and
user turns with `<tool_response>`. The two prompts are the release's own and are left behind; everything after them is rendered
back as it was (`released_turns`); turns that break the format are kept raw for that. What may change is the free white space
around a turn's parts and the layout of its JSON; `ImportCounts.num_same` says how many came back byte for byte.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from webdancer.agent.format import TOOL_ERRORS, Turn, parse_turn
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.transcript import replay
from webdancer.errors import StoreError
from webdancer.records import (
    CotMode,
    Record,
    Status,
    Step,
    ToolError,
    Trajectory,
    Usage,
    VerdictReason,
    VerdictStage,
)
from webdancer.store import write_records
from webdancer.trajectories.funnel import make_verdict
from webdancer.trajectories.rules import check_validity

_QUESTION_MARK = "\n\nUser: "
_OBSERVATION = re.compile(r"<tool_response>\n(.*)\n</tool_response>", re.DOTALL)
_MODEL_NAME = "webdancer-release"


class ReleasedMessage(BaseModel):
    """One chat message of a released line."""

    model_config = ConfigDict(extra="forbid")
    role: str
    content: str


class _ReleasedLine(BaseModel):
    messages: list[ReleasedMessage]


class ImportCounts(Record):
    """What an import brought."""

    num_trajectories: int
    num_same: int
    """Trajectories whose turns are rendered back byte for byte."""
    num_valid: int
    reasons: dict[str, int]
    """Trajectories by the reason of their verdict at validity; `passed` is one of them."""


def import_webdancer(file: Path, out_dir: Path) -> ImportCounts:
    """Write `out_dir/trajectories.jsonl` and `out_dir/verdicts.jsonl` (validity) from a released file.

    Raises:
        StoreError: the file cannot be read, or a line of it is no released trajectory; nothing is written then.
    """
    trajectories: list[Trajectory] = []
    num_same = 0
    for number, messages in _read_messages(file):
        trajectory = to_trajectory(messages, trajectory_id=f"{file.stem}-{number:05d}")
        trajectories.append(trajectory)
        num_same += released_turns(trajectory) == [message.content for message in messages[2:]]
    verdicts = [make_verdict(t, VerdictStage.VALIDITY, check_validity(t)) for t in trajectories]
    write_records(out_dir / "trajectories.jsonl", trajectories)
    write_records(out_dir / "verdicts.jsonl", verdicts)
    reasons = Counter(verdict.reason for verdict in verdicts)
    return ImportCounts(
        num_trajectories=len(trajectories),
        num_same=num_same,
        num_valid=reasons[VerdictReason.PASSED],
        reasons={reason.value: reasons[reason] for reason in sorted(reasons)},
    )


def _read_messages(file: Path) -> Iterator[tuple[int, list[ReleasedMessage]]]:
    """The messages of each line, with the number of the line counted from 1; blank lines are passed over."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {file}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            messages = _ReleasedLine.model_validate(json.loads(line)).messages
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise StoreError(f"{file}, line {number}: no released trajectory: {where}: {first['msg']}") from None
        except ValueError as error:
            raise StoreError(f"{file}, line {number}: no released trajectory: {error}") from None
        roles = [message.role for message in messages]
        expected = ["system", *(("user", "assistant") * (len(messages) // 2))]
        if len(messages) < 3 or roles != expected:
            raise StoreError(
                f"{file}, line {number}: got the roles {roles}, expected system, then user and assistant in turn"
            )
        yield number, messages


def to_trajectory(messages: list[ReleasedMessage], *, trajectory_id: str) -> Trajectory:
    """One released conversation as a trajectory. Trajectories that share a question share its `qa_id`."""
    question = messages[1].content.rpartition(_QUESTION_MARK)[2]
    turns = [message.content for message in messages[2::2]]
    observations = [_observation(message.content) for message in messages[3::2]]
    steps: list[Step] = []
    last: Turn | None = None
    for text, observation in zip(turns, [*observations, None], strict=True):
        step, last = _step(text, observation)
        steps.append(step)
    answer = None if last is None else last.answer
    status = Status.ANSWERED if answer is not None else Status.INVALID_FORMAT if last is None else Status.STEP_LIMIT
    return Trajectory(
        id=trajectory_id,
        qa_id="q-" + hashlib.sha256(question.encode()).hexdigest()[:16],
        question=question,
        model=_MODEL_NAME,
        seed=0,
        mode=CotMode.SHORT,
        steps=tuple(steps),
        answer=answer,
        status=status,
        usage=Usage(llm_calls=len(steps), tool_calls=sum(step.tool is not None for step in steps)),
    )


def _observation(text: str) -> str:
    """What stands between the tags of a tool response; a user turn without them is taken as it is."""
    match = _OBSERVATION.fullmatch(text)
    return text if match is None else match.group(1)


def _step(text: str, observation: str | None) -> tuple[Step, Turn | None]:
    """One turn of the model as a step, and what the parser makes of it (None where it breaks the format)."""
    turn = parse_turn(text, mode=CotMode.SHORT)
    if isinstance(turn, list):
        error = TOOL_ERRORS.get(turn[0].kind, ToolError.INVALID_FORMAT)
        return Step(thought="", observation=observation, error=error, raw=text), None
    if turn.call is None:
        # An answer before the end is no step of ours: it is kept as it stands, with what followed.
        return Step(thought=turn.thought, observation=observation, raw=None if observation is None else text), turn
    return Step(thought=turn.thought, tool=turn.call.name, arguments=turn.call.arguments, observation=observation), turn


def released_turns(trajectory: Trajectory) -> list[str]:
    """The turns after the question as the release writes them: the model's and the tool's in turn."""
    return [entry.text for entry in replay(trajectory, TOOL_SCHEMAS).entries[1:]]
