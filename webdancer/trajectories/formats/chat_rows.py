"""Conversations as JSON rows for other trainers, and rows read back. Pure.

- **sharegpt**, for LLaMA-Factory (its data/README, its `SharegptDatasetConverter`): `conversations` of `from` and `value`, and
  `system` beside them. Its converter drops an example whose turns do not alternate. Observations are `human` turns with their
  tags in the text, not `observation` turns: its Qwen templates would put a second pair of tags around these, other templates
  none. The loss is on `gpt` turns either way.
- **chatml**, for ms-swift (its Custom-dataset page, the standard `messages` format): the loss is on `assistant` turns. Not `tool`
  turns, for the same reason. Questions become prompts for its GRPO, with the answer as `solution` for the reward function.
- **openai**, for OpenAI's fine-tuning API (its guide to supervised fine-tuning): `messages` and nothing else. It trains on every
  assistant message that has no `weight` of 0; calls and observations stay text.
- **webdancer**, the authors' release: see `trajectories.import_release`.

`id` and `origin` (see `conversation`) ride along where the reader leaves out columns that it does not know: LLaMA-Factory and
ms-swift do. OpenAI may refuse them, so what comes back from there has new ids.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field, JsonValue, ValidationError

from webdancer.llm.protocol import Message
from webdancer.records import QA
from webdancer.trajectories.formats.conversation import Conversation, ForeignTurns, RowError, first_problem

JsonRow = dict[str, JsonValue]
ChatRole = Literal["system", "user", "assistant", "tool"]


class ChatMessage(BaseModel):
    """One chat message; names, weights and the like are read over."""

    role: ChatRole
    content: str


class _Turn(BaseModel):
    sender: Literal["system", "human", "observation", "gpt", "function_call"] = Field(alias="from")
    value: str


class _ShareGptRow(BaseModel):
    conversations: list[_Turn]
    system: str | None = None
    id: str | None = None
    origin: str | None = None


class _MessagesRow(BaseModel):
    messages: list[ChatMessage]
    id: str | None = None
    origin: str | None = None


_ROLES: dict[str, ChatRole] = {
    "system": "system",
    "human": "user",
    "observation": "tool",
    "gpt": "assistant",
    "function_call": "assistant",
}


def sharegpt_row(conversation: Conversation) -> JsonRow:
    """A row for LLaMA-Factory."""
    system, *turns = conversation.messages
    return {
        "conversations": [
            {"from": "gpt" if turn.role == "assistant" else "human", "value": turn.content} for turn in turns
        ],
        "system": system.content,
        "id": conversation.id,
        "origin": conversation.origin,
    }


def llama_factory_info(file: str) -> JsonRow:
    """The content of `dataset_info.json`, in which LLaMA-Factory looks up the dataset `webdancer_sft`."""
    return {
        "webdancer_sft": {
            "file_name": file,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "system": "system"},
            "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
        }
    }


def chatml_row(conversation: Conversation) -> JsonRow:
    """A row for ms-swift."""
    return {**openai_row(conversation), "id": conversation.id, "origin": conversation.origin}


def openai_row(conversation: Conversation) -> JsonRow:
    """A row for OpenAI's fine-tuning API."""
    return {"messages": message_rows(conversation.messages)}


def prompt_row(qa: QA, messages: Sequence[Message]) -> JsonRow:
    """A question as a prompt for ms-swift's GRPO, which hands all other fields to the reward function."""
    return {"messages": message_rows(messages), "id": qa.id, "solution": qa.answer}


def message_rows(messages: Sequence[Message]) -> list[JsonValue]:
    """Messages as JSON objects of `role` and `content`."""
    return [{"role": message.role, "content": message.content} for message in messages]


def parse_sharegpt(row: JsonValue, *, default_id: str) -> ForeignTurns:
    """The conversation of a ShareGPT row. Turns of `function_call` count as the model's, `observation` as the user's.

    Raises:
        RowError: it is none.
    """
    try:
        parsed = _ShareGptRow.model_validate(row)
    except ValidationError as error:
        raise RowError(first_problem(error)) from None
    turns = [ChatMessage(role=_ROLES[turn.sender], content=turn.value) for turn in parsed.conversations]
    return foreign_turns(turns, id_=parsed.id or default_id, origin=parsed.origin)


def parse_messages(row: JsonValue, *, default_id: str) -> ForeignTurns:
    """The conversation of a row with `messages`: chatml's, OpenAI's and that of `datasets`.

    Raises:
        RowError: it is none.
    """
    try:
        parsed = _MessagesRow.model_validate(row)
    except ValidationError as error:
        raise RowError(first_problem(error)) from None
    return foreign_turns(parsed.messages, id_=parsed.id or default_id, origin=parsed.origin)


def foreign_turns(messages: Sequence[ChatMessage], *, id_: str, origin: str | None) -> ForeignTurns:
    """The messages behind the system's, if there is one, as question and turns.

    Raises:
        RowError: they do not alternate between user and assistant, or end with the user.
    """
    spoken = messages[1:] if messages and messages[0].role == "system" else messages
    roles = ["user" if message.role == "tool" else message.role for message in spoken]
    if len(roles) < 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise RowError(f"got the roles {[m.role for m in messages]}, expected system, then user and assistant in turn")
    return ForeignTurns(id_, spoken[0].content, tuple(message.content for message in spoken[1:]), origin)
