"""The authors' released trajectories (chat messages, JSON lines): read into ours, and written in their layout.

A released line holds `messages`: a system prompt, a user prompt that ends with `User: QUESTION`, then the model's turns and
user turns with `<tool_response>`; beside them `type`, `task`, `functions`, `tool_calls`, the reference `answer`, `tag`. The two
prompts are the release's own and are left behind; everything after them is rendered back as it was (`released_turns`); turns that
break the format are kept raw for that. What may change is the free white space around a turn's parts and the layout of its JSON;
`ImportCounts.num_same` says how many came back byte for byte. In what is written here, the system prompt is ours.

The released checkpoints write these turns, so `parse_turn` reads them as they come (`configs/released.toml`). What differs:
- the head lines of their tools' observations (`A Google search for '…' found …`, `The useful information in … for user goal …`,
  `Date published:`), and a snippet behind an empty line; the parts and their order are ours, and so is `=======` between parts;
- `visit` is called with a list of URLs or with one, and `search` with a list of queries: ours takes both;
- WebDancer-32B stems from QwQ, whose template opens `<think>` in the prompt: a server without a reasoning parser gives turns
  that begin inside the thought, which long CoT reads;
- Tongyi-DeepResearch-30B-A3B may also call `google_scholar`, `PythonInterpreter` (its code stands in `<code>` tags behind a call
  with empty arguments, so the block is no JSON) and `parse_file`. There are no such tools here: such a call is answered by an
  error that names the tools there are, and the model goes on. Our system prompt does not offer them.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.records import QA, QAKind, Trajectory
from webdancer.trajectories.formats.chat_rows import ChatMessage, JsonRow, foreign_turns, message_rows
from webdancer.trajectories.formats.conversation import (
    Conversation,
    ForeignTurns,
    RowError,
    first_problem,
    read_turns,
    rendered_turns,
)
from webdancer.trajectories.formats.imported import ImportCounts, read_json_rows, write_trajectories

_QUESTION_MARK = "\n\nUser: "
_MODEL_NAME = "webdancer-release"


class ReleasedMessage(BaseModel):
    """One chat message of a released line."""

    model_config = ConfigDict(extra="forbid")
    role: str
    content: str


class _ReleasedLine(BaseModel):
    messages: list[ReleasedMessage]
    id: str | None = None
    origin: str | None = None


def import_webdancer(file: Path, out_dir: Path) -> ImportCounts:
    """Write `out_dir/trajectories.jsonl` and `out_dir/verdicts.jsonl` (validity) from a released file.

    Raises:
        StoreError: the file cannot be read, or a line of it is no released trajectory; nothing is written then.
    """
    rows = read_json_rows(file, parse_released, what="released trajectory")
    return write_trajectories(rows, out_dir, model=_MODEL_NAME)


def parse_released(row: JsonValue, *, default_id: str) -> ForeignTurns:
    """The conversation of a released line.

    Raises:
        RowError: it is none.
    """
    try:
        line = _ReleasedLine.model_validate(row)
    except ValidationError as error:
        raise RowError(first_problem(error)) from None
    return _turns(line.messages, id_=line.id or default_id, origin=line.origin)


def to_trajectory(messages: list[ReleasedMessage], *, trajectory_id: str) -> Trajectory:
    """One released conversation as a trajectory. Trajectories that share a question share its `qa_id`."""
    return read_turns(_turns(messages, id_=trajectory_id, origin=None), model=_MODEL_NAME)


def _turns(messages: list[ReleasedMessage], *, id_: str, origin: str | None) -> ForeignTurns:
    try:
        checked = [ChatMessage.model_validate(message.model_dump()) for message in messages]
    except ValidationError as error:
        raise RowError(first_problem(error)) from None
    foreign = foreign_turns(checked, id_=id_, origin=origin)
    # What was written here holds the question alone, which may itself hold the mark.
    written_here = origin is not None and foreign.question.startswith(_QUESTION_MARK)
    question = foreign.question
    return foreign._replace(
        question=question.removeprefix(_QUESTION_MARK) if written_here else question.rpartition(_QUESTION_MARK)[2]
    )


def released_row(conversation: Conversation, trajectory: Trajectory, qa: QA | None) -> JsonRow:
    """A line in the release's layout. The reference answer is the question's where it is known, else the trajectory's own."""
    system, question, *turns = message_rows(conversation.messages)
    assert isinstance(question, dict)
    answer = trajectory.answer or "" if qa is None else qa.answer
    is_rewritten = qa is not None and qa.kind is QAKind.EASY_TO_HARD
    return {
        "type": "chatml",
        "task": "agent/multiturn_search",
        "messages": [system, {"role": "user", "content": f"{_QUESTION_MARK}{question['content']}"}, *turns],
        "functions": [_released_function(schema) for schema in TOOL_SCHEMAS],
        "tool_calls": [],
        "answer": [[answer]],
        "tag": "e2hqa" if is_rewritten else "crawlqa",
        "id": conversation.id,
        "origin": conversation.origin,
    }


def released_question(qa: QA) -> JsonRow:
    """A question in the layout of the release's question file. It keeps neither id nor pages; `qa` reads it."""
    return {
        "question": qa.question,
        "answer": qa.answer,
        "tag": "e2hqa" if qa.kind is QAKind.EASY_TO_HARD else "crawlqa",
    }


def _released_function(schema: dict[str, JsonValue]) -> JsonRow:
    return {
        "name_for_human": schema["name"],
        "name_for_model": schema["name"],
        "description_for_model": schema["description"],
        "parameters": schema["parameters"],
    }


def released_turns(trajectory: Trajectory) -> list[str]:
    """The turns after the question as the release writes them: the model's and the tool's in turn."""
    return rendered_turns(trajectory)
