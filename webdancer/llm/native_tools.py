"""Tool calls between the text of turns, as all of the agent has them, and the API's own form (`tools = "native"`).

Only the form changes. In a request the tools are declared as functions, an earlier turn with well-formed calls becomes an
assistant message with `tool_calls`, and its observation a message of the role `tool`. A turn that breaks the format stays text,
as the model wrote it: APIs and chat templates refuse arguments that are no JSON. How a reply is read back: `llm.wire`.

An answer is recognised as everywhere, by its `<answer>` tags, which the prompt asks for; a reply with neither a call nor these
tags is a turn without an action, which the loop tells the model. So nothing that a model says in passing is taken for its answer.
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from pydantic import JsonValue

from webdancer.llm.protocol import Message

TAG = re.compile(r"<(/?(?:think|tool_call|tool_response|answer))>")
"""The tags of turns (`agent.format`)."""
_CALLS = re.compile(r"(.*?)((?:<tool_call>.*?</tool_call>\s*)+)", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_THOUGHT = re.compile(r"\s*(?:<think>(.*?)</think>)?\s*", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>\n(.*)\n</tool_response>(.*)", re.DOTALL)

WireMessage = dict[str, JsonValue]


def call_block(name: str, arguments: str) -> str:
    """A native call as the text of a turn. Broken arguments stay broken; a tag in them is written as JSON also can."""
    name, arguments = json.dumps(name, ensure_ascii=False), arguments.strip() or "{}"
    call = TAG.sub(r"\\u003c\1>", f'{{"name": {name}, "arguments": {arguments}}}')
    return f"<tool_call>\n{call}\n</tool_call>"


def native_schemas(tools: Sequence[dict[str, JsonValue]]) -> list[JsonValue]:
    """The request's `tools`."""
    return [{"type": "function", "function": tool} for tool in tools]


def text_message(message: Message) -> WireMessage:
    """A message as it stands."""
    return {"role": message.role, "content": message.content}


def native_messages(messages: Sequence[Message], *, with_reasoning: bool) -> list[WireMessage]:
    """The messages of a request whose tools are native.

    Args:
        with_reasoning: the thought goes into `reasoning_content`, which DeepSeek's thinking mode wants of every turn with a call;
            it is empty where the transcript leaves the thoughts out.
    """
    sent: list[WireMessage] = []
    ids: list[str] = []  # of the calls that wait for their result
    for number, message in enumerate(messages):
        response = _RESPONSE.fullmatch(message.content) if message.role == "user" else None
        if ids and response is not None:
            sent += [{"role": "tool", "tool_call_id": call_id, "content": response.group(1)} for call_id in ids]
            if more := response.group(2).strip():
                sent.append({"role": "user", "content": more})
            ids = []
            continue
        turn = None
        if message.role == "assistant" and number + 1 < len(messages) and _RESPONSE.match(messages[number + 1].content):
            turn = _native_turn(message.content, number, with_reasoning)
        sent.append(turn.message if turn else text_message(message))
        ids = turn.ids if turn else []
    return sent


class _NativeTurn(NamedTuple):
    message: WireMessage
    ids: list[str]
    """Of its calls."""


def _native_turn(text: str, number: int, with_reasoning: bool) -> _NativeTurn | None:
    """A turn with its calls taken out of the text; None where they are not all well-formed, or not all that it holds."""
    found = _CALLS.fullmatch(text)
    thought = _THOUGHT.fullmatch(found.group(1)) if found else None
    if found is None or thought is None:
        return None
    functions = [_function(call) for call in _CALL.findall(found.group(2))]
    if None in functions:
        return None
    # Nine letters and digits, the only form of an id that Mistral's templates take.
    ids = [f"c{number:05d}{i:03d}" for i in range(len(functions))]
    calls: list[JsonValue] = [
        {"id": call_id, "type": "function", "function": function}
        for call_id, function in zip(ids, functions, strict=True)
    ]
    message: WireMessage = {"role": "assistant", "content": found.group(1).strip() or None, "tool_calls": calls}
    if with_reasoning:
        message |= {"content": None, "reasoning_content": (thought.group(1) or "").strip()}
    return _NativeTurn(message, ids)


def _function(text: str) -> dict[str, JsonValue] | None:
    """Name and arguments, the latter as JSON in a string; None where the text is not the JSON of a call."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments")
    return (
        {"name": value["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
        if isinstance(arguments, dict)
        else None
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
