"""Asks a chat model for one JSON object and checks it against a pydantic schema.

Models wrap JSON in prose, code fences and thoughts. What is looked for is the one object that fits the schema; where none
does, or several that differ do, the model is told what was wrong and asked again.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from webdancer.errors import ModelError
from webdancer.llm.control_tokens import part_control_tokens
from webdancer.llm.prompts import fill_prompt
from webdancer.llm.protocol import ChatModel, Message, Sampling

M = TypeVar("M", bound=BaseModel)

_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)
_OBJECT_START = re.compile(r"\{(?=\s*[\"}])")
_STRING_OR_BRACE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}"]', re.DOTALL)


class MalformedReply(ModelError):
    """The model gave no usable JSON object, also after it was told what was wrong."""


class UnusableReply(Exception):
    """Why a reply holds no object that fits, in words for the model."""


async def ask_json(model: ChatModel, prompt: str, schema: type[M], *, sampling: Sampling, max_reasks: int) -> M:
    """The object of type `schema` that `model` answers `prompt` with.

    The prompt is one user message. After an unusable reply, that reply and a message saying what was wrong are appended,
    up to `max_reasks` times.

    Raises:
        MalformedReply: no reply held a usable object.
        ModelError: the model failed.
    """
    messages = [Message("user", prompt)]
    for reasks_left in range(max_reasks, -1, -1):
        reply = await model.chat(messages, sampling)
        try:
            return find_object(reply.content, schema)
        except UnusableReply as error:
            problem = str(error)
        if reply.finish == "length":
            problem += " The reply was cut off because it was too long: be shorter."
        if not reasks_left:
            shown = " ".join(reply.content.split())
            raise MalformedReply(
                f"model {model.name!r} gave no usable {schema.__name__} in {max_reasks + 1} replies: {problem} "
                f"Its last reply began: {shown[:200]!r}"
            )
        messages += [
            Message("assistant", part_control_tokens(reply.content) or "(empty reply)"),
            Message("user", fill_prompt("reask_json", problem=problem)),
        ]
    raise ValueError(f"max_reasks: got {max_reasks}, expected 0 or more")


def find_object(text: str, schema: type[M]) -> M:
    """The one JSON object in `text` that fits `schema`; thoughts before it count only where nothing follows them.

    Raises:
        UnusableReply: no object fits, or several that differ do; the message says what was wrong.
    """
    answer = _THOUGHT.sub("", text)
    with contextlib.suppress(ValidationError):  # as nearly always the answer is the object, and this is told faster
        return schema.model_validate_json(answer.strip())
    for part in dict.fromkeys([answer, text]):
        spans = list(_objects(part))
        fitting: list[M] = []
        problems: list[str] = []
        for span in spans:
            try:
                found = _validated(span, schema)
            except UnusableReply as error:
                problems.append(str(error))
                continue
            if found not in fitting:
                fitting.append(found)
        if len(fitting) == 1:
            return fitting[0]
        if len(fitting) > 1:
            raise UnusableReply(f"It holds {len(fitting)} different JSON objects that fit; exactly one is expected.")
        if spans:
            raise UnusableReply(problems[-1])
    _explain_absence(answer)


def _explain_absence(text: str) -> NoReturn:
    if _OBJECT_START.search(text):
        raise UnusableReply("Its JSON object has no end: a closing brace or quotation mark is missing.")
    raise UnusableReply("It holds no JSON object.")


def _objects(text: str) -> Iterator[str]:
    """The outermost spans of `text` from `{` to the brace that closes it, braces in strings not counted."""
    start = _OBJECT_START.search(text)
    while start is not None:
        depth, end = 0, None
        for token in _STRING_OR_BRACE.finditer(text, start.start()):
            if token.group() == '"':  # a string without end
                break
            depth += {"{": 1, "}": -1}.get(token.group(), 0)
            if depth == 0:
                end = token.end()
                break
        if end is None:
            return
        yield text[start.start() : end]
        start = _OBJECT_START.search(text, end)


def _validated(span: str, schema: type[M]) -> M:
    with contextlib.suppress(ValidationError):  # else it is looked at with more care
        return schema.model_validate_json(span)
    try:
        # Line breaks inside strings are what models get wrong most often, and their meaning is plain: let them pass.
        value = _DECODER.decode(span)
    except json.JSONDecodeError as error:
        near = " ".join(span[max(0, error.pos - 20) : error.pos + 20].split())
        raise UnusableReply(f"Its JSON is not valid: {error.msg} near `{near}`.") from None
    except (ValueError, RecursionError) as error:
        raise UnusableReply(f"Its JSON is not valid: {error}.") from None
    try:
        return schema.model_validate_json(json.dumps(value))
    except ValidationError as error:
        lines = [
            f"`{'.'.join(str(part) for part in problem['loc']) or 'object'}`: {problem['msg']}"
            for problem in error.errors(include_url=False)[:5]
        ]
        raise UnusableReply(f"Its JSON object does not have the form asked for: {'; '.join(lines)}.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)
