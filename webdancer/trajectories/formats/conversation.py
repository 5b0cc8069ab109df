"""A trajectory as the conversation that SFT trains on, and a conversation read back as a trajectory (paper, section 3.3).

A conversation is what `agent.transcript.replay` shows the policy, up to the policy's last turn: the system prompt, the question,
then turns of the model and observations, each observation a user's turn between `<tool_response>` tags. A demand for a forced
answer stands behind the last observation, in the same turn. So whoever puts the loss on the assistant's turns alone trains on the
text that our own SFT trains on.

Of a trajectory, messages do not tell everything (its seed, its times, the type of an error). What they do not tell is kept beside
them as `origin`, a JSON text, found by reading the messages back and noting what came out differently: with it, a conversation
reads back as the very same trajectory; without it, as one with the same turns, question and answer.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, JsonValue, ValidationError

from webdancer.agent.format import TOOL_ERRORS, Turn, parse_turn
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.transcript import replay
from webdancer.errors import StoreError
from webdancer.llm.prompts import load_prompt
from webdancer.llm.protocol import Message
from webdancer.records import CotMode, Record, Status, Step, ToolError, Trajectory, Usage

_OBSERVATION = re.compile(r"<tool_response>\n(.*)\n</tool_response>", re.DOTALL)


class Conversation(NamedTuple):
    """One trajectory as chat messages: system, user, then assistant and user in turn; the last is the assistant's."""

    id: str
    messages: tuple[Message, ...]
    origin: str
    """JSON: what the messages do not tell of the trajectory."""


class ForeignTurns(NamedTuple):
    """A conversation as it was read from a file, without the system prompt that it ran under."""

    id: str
    """The trajectory's id."""
    question: str
    turns: tuple[str, ...]
    """What follows the question: the model's turns and the user's in turn."""
    origin: str | None = None


class RowError(ValueError):
    """An entry of a file is none of its format; the message says what was got and what was expected."""


class _Origin(Record):
    """What the messages do not tell: fields of the trajectory, and of its steps by their number from 0."""

    trajectory: dict[str, JsonValue] = Field(default_factory=dict)
    steps: dict[int, dict[str, JsonValue]] = Field(default_factory=dict)


def to_conversation(trajectory: Trajectory, schemas: Sequence[dict[str, JsonValue]], *, prompt: str) -> Conversation:
    """The messages of a finished episode, as its policy read and wrote them.

    Args:
        schemas: the tools, for the system prompt.
        prompt: the name of the system prompt.

    Raises:
        StoreError: the trajectory has no turn, a step before the last has no observation, or a thought or answer holds a tag.
    """
    try:
        messages = replay(trajectory, schemas, prompt=prompt).messages
    except ValueError as error:
        raise StoreError(f"trajectory {trajectory.id}: cannot be written as a conversation: {error}") from None
    if messages[-1].role == "user":
        messages = messages[:-1]  # an observation that no turn answers
    roles = [message.role for message in messages]
    if len(roles) < 3 or roles != ["system", *(("user", "assistant") * (len(roles) // 2))]:
        raise StoreError(
            f"trajectory {trajectory.id}: got the roles {', '.join(roles)}, expected system, then user and assistant in turn: "
            "every step before the last needs an observation"
        )
    told = read_turns(ForeignTurns(trajectory.id, messages[1].content, tuple(m.content for m in messages[2:])))
    return Conversation(trajectory.id, messages, _origin(trajectory, told).model_dump_json(exclude_defaults=True))


def _origin(trajectory: Trajectory, told: Trajectory) -> _Origin:
    """What of a trajectory differs from what its messages told."""
    whole, seen = trajectory.model_dump(mode="json"), told.model_dump(mode="json")
    pairs = zip(whole.pop("steps"), seen.pop("steps"), strict=True)
    steps = {i: _differences(step, seen_step) for i, (step, seen_step) in enumerate(pairs)}
    return _Origin(trajectory=_differences(whole, seen), steps={i: found for i, found in steps.items() if found})


def _differences(whole: dict[str, JsonValue], seen: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in whole.items() if value != seen[key]}


def read_turns(foreign: ForeignTurns, *, model: str = "unknown") -> Trajectory:
    """A conversation as a trajectory. Turns that break the format are kept raw; trajectories of one question share its `qa_id`.

    Raises:
        RowError: `origin` is damaged or does not belong to these turns.
    """
    question, turns = foreign.question, foreign.turns
    demand = f"\n\n{load_prompt('force_answer')}"
    is_forced = (question if len(turns) < 2 else turns[-2]).endswith(demand)
    if is_forced and len(turns) < 2:
        question = question.removesuffix(demand)
    observations = [_observation(text.removesuffix(demand)) for text in turns[1::2]]
    steps: list[Step] = []
    last: Turn | None = None
    for text, observation in zip(turns[::2], [*observations, None][: len(turns[::2])], strict=True):
        step, last = _step(text, observation)
        steps.append(step)
    answer = None if last is None else last.answer
    trajectory = Trajectory(
        id=foreign.id,
        qa_id=question_id(question),
        question=question,
        model=model,
        seed=0,
        mode=CotMode.SHORT,
        steps=tuple(steps),
        answer=answer,
        status=_status(last, is_forced=is_forced),
        usage=Usage(llm_calls=len(steps), tool_calls=sum(step.tool is not None for step in steps)),
    )
    return trajectory if foreign.origin is None else _with_origin(trajectory, foreign.origin)


def question_id(question: str) -> str:
    """The id of a question that came without one."""
    return "q-" + hashlib.sha256(question.encode()).hexdigest()[:16]


def _status(last: Turn | None, *, is_forced: bool) -> Status:
    if last is None:
        return Status.INVALID_FORMAT
    if last.answer is None:
        return Status.STEP_LIMIT
    return Status.FORCED_ANSWER if is_forced else Status.ANSWERED


def _with_origin(trajectory: Trajectory, origin: str) -> Trajectory:
    """The trajectory with what its messages did not tell."""
    try:
        known = _Origin.model_validate_json(origin)
        steps = [step.model_dump(mode="json") for step in trajectory.steps]
        for number, differences in known.steps.items():
            steps[number] |= differences
        values = {**trajectory.model_dump(mode="json", exclude={"steps"}), **known.trajectory, "steps": steps}
        return Trajectory.model_validate_json(json.dumps(values))
    except IndexError:
        raise RowError(
            f"'origin' tells of step {max(known.steps) + 1}, but the conversation has {len(trajectory.steps)} of them; leave the "
            "field out where the turns were changed"
        ) from None
    except ValidationError as error:
        raise RowError(f"'origin' is none that an export wrote: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a row: where, what was got, what was expected."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the entry"
    return f"{where}: got {str(first['input'])[:80]!r}: {first['msg']}"


def _observation(text: str) -> str:
    """What stands between the tags of a tool response; a user's turn without them is taken as it is."""
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


def rendered_turns(trajectory: Trajectory) -> list[str]:
    """The turns after the question as a conversation holds them: the model's and the user's in turn."""
    return [message.content for message in replay(trajectory, TOOL_SCHEMAS).messages[2:]]
