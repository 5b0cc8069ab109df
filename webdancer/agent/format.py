"""The format of one turn: a strict parser with a typed reason for each violation, and the renderer (paper, section 3.1).

A turn is `<think>…</think>` followed by one `<tool_call>{…}</tool_call>` or one `<answer>…</answer>`; an observation comes
back between `<tool_response>` tags. White space between the blocks and just inside them is free. The renderer writes the
layout of the authors' released trajectories and is the parser's inverse:

    <think>\\nTHOUGHT\\n</think>\\n<tool_call>\\n{"name": "search", "arguments": {"query": ["…"]}}\\n</tool_call>

Everything here is pure. Text from outside (pages, search results, questions) goes through `neutralise` before it meets a model.
"""

import json
import re
from enum import StrEnum
from typing import NamedTuple

from pydantic import JsonValue

from webdancer.agent.schemas import NO_EXTRA, ArgumentError, ExtraTools, UnknownToolError, check_call
from webdancer.llm.control_tokens import TokenStarts, part_control_tokens
from webdancer.records import CotMode, ToolError

_TAG = re.compile(r"<(/?)(think|tool_call|tool_response|answer)>")
_PLAIN_TURN = re.compile(r"\s*<think>([^<]*)</think>\s*<(tool_call|answer)>([^<]*)</\2>\s*")
"""A turn without another `<`: nothing can be wrong with its tags."""
_CONTROL = re.compile(r"<[|｜][\w ▁.-]{1,64}[|｜]>")
_FOREIGN = TokenStarts(r"[\s/]*(?i:think|tool_call|tool_response|answer|tools)\b")
_INVENTED = re.compile(r"<\u200b?tool_response>")
"""Also as it stands in a stored thought, neutralised."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_MAX_TOLD = 4
"""Violations that the model is told of one turn."""


class ViolationKind(StrEnum):
    """How a turn can break the format, the most telling first: a turn is named after the first one that it shows."""

    INVENTED_OBSERVATION = "invented_observation"
    """A `<tool_response>` that the model wrote itself."""
    SEVERAL_ACTIONS = "several_actions"
    CALL_AND_ANSWER = "call_and_answer"
    SEVERAL_ANSWERS = "several_answers"
    CONTROL_TOKEN = "control_token"
    """A token that steers chat models, such as `<|im_start|>`."""
    UNCLOSED_TAG = "unclosed_tag"
    STRAY_TAG = "stray_tag"
    """A closing tag that closes nothing, or a tag inside another block."""
    NO_ACTION = "no_action"
    INVALID_JSON = "invalid_json"
    NOT_A_CALL = "not_a_call"
    """JSON that is no object with exactly `name` and `arguments`."""
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    EMPTY_ANSWER = "empty_answer"
    MISSING_THOUGHT = "missing_thought"
    SEVERAL_THOUGHTS = "several_thoughts"
    WRONG_ORDER = "wrong_order"
    """The thought stands behind the action."""
    TEXT_OUTSIDE_TAGS = "text_outside_tags"


_RANK = {kind: rank for rank, kind in enumerate(ViolationKind)}

TOOL_ERRORS = {
    ViolationKind.INVENTED_OBSERVATION: ToolError.INVENTED_OBSERVATION,
    ViolationKind.INVALID_JSON: ToolError.INVALID_JSON,
    ViolationKind.NOT_A_CALL: ToolError.INVALID_JSON,
    ViolationKind.UNKNOWN_TOOL: ToolError.UNKNOWN_TOOL,
    ViolationKind.INVALID_ARGUMENTS: ToolError.INVALID_ARGUMENTS,
}
"""The error that a step records for a violation; those not named here are `ToolError.INVALID_FORMAT`."""


class Violation(NamedTuple):
    """One way in which a turn breaks the format; `detail` says what was got and what was expected."""

    kind: ViolationKind
    detail: str


class ToolCall(NamedTuple):
    """A call whose tool exists and whose arguments fit it; `arguments` as the model wrote them."""

    name: str
    arguments: dict[str, JsonValue]


class Turn(NamedTuple):
    """A turn that follows the format: exactly one of `call` and `answer` is set."""

    thought: str
    call: ToolCall | None = None
    answer: str | None = None


def neutralise(text: str) -> str:
    """Text from outside, in which no tag of ours and no control token can be read any more.

    A zero-width space parts the first character from what follows; nothing else changes, and a second pass changes nothing.
    """
    return _FOREIGN.part(text)


def whole_characters(text: str) -> str:
    """The text with half characters (lone surrogates), which no file could hold, replaced by `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def break_control_tokens(text: str) -> str:
    """The text with control tokens made unreadable as such, while our tags stay: for a model's own broken turns."""
    return part_control_tokens(text)


def parse_turn(
    text: str, *, mode: CotMode, reasoning: str | None = None, extra: ExtraTools = NO_EXTRA
) -> Turn | list[Violation]:
    """The turn that `text` holds, or all its violations, the most telling first. Never raises.

    Args:
        text: the content of the model's reply.
        mode: in long CoT the thought is `reasoning`, and a think block in the content is set aside; where there is no
            separate reasoning, the content's think block counts, also if only its end stands there (templates of
            reasoning models open it in the prompt). In short CoT the think block is the thought, and `reasoning` stands
            in only where the endpoint has taken the block out of the content.
        reasoning: the model's separate reasoning. It is free text: tags in it are neutralised, but for an observation.
        extra: the tools that may be called besides search and visit.
    """
    blocks, violations = _blocks(text, half_open=mode is CotMode.LONG and not reasoning)
    thought = _thought(blocks, mode, reasoning, violations)
    actions = [block for block in blocks if block.tag != "think"]
    calls = [block for block in actions if block.tag == "tool_call"]
    answers = [block for block in actions if block.tag == "answer"]
    if len(calls) > 1:
        violations.append(Violation(ViolationKind.SEVERAL_ACTIONS, f"got {len(calls)} tool calls, expected one"))
    if calls and answers:
        violations.append(
            Violation(ViolationKind.CALL_AND_ANSWER, "got a tool call and an answer, expected one of them")
        )
    if len(answers) > 1:
        violations.append(Violation(ViolationKind.SEVERAL_ANSWERS, f"got {len(answers)} answers, expected one"))
    if not actions:
        violations.append(
            Violation(ViolationKind.NO_ACTION, "got neither a tool call nor an answer, expected one of them")
        )
    parsed = [parse_call(block.text, extra) for block in calls]
    violations += [item for item in parsed if isinstance(item, Violation)]
    if any(not block.text.strip() for block in answers):
        violations.append(Violation(ViolationKind.EMPTY_ANSWER, "the answer is empty"))
    if violations:
        return sorted(dict.fromkeys(violations), key=lambda violation: _RANK[violation.kind])
    call = next((item for item in parsed if isinstance(item, ToolCall)), None)
    return Turn(thought, call, None if call else answers[0].text.strip())


def reasoning_of(text: str, reasoning: str | None) -> str:
    """What a reply shows of a reasoning model's own thinking: `reasoning`, or what stands before a half-open `</think>`."""
    if reasoning and reasoning.strip():
        return reasoning
    before, closed, _ = text.partition("</think>")
    return before.strip() if closed and "<think>" not in before else ""


class _Block(NamedTuple):
    """One `<tag>text</tag>` of a turn."""

    tag: str
    text: str


def _blocks(text: str, *, half_open: bool) -> tuple[list[_Block], list[Violation]]:
    """The blocks of a turn in their order, and what is wrong with its tags and between them."""
    plain = _PLAIN_TURN.fullmatch(text)  # as nearly always, and told faster
    if plain is not None:
        return [_Block("think", plain.group(1)), _Block(plain.group(2), plain.group(3))], []
    blocks: list[_Block] = []
    violations: list[Violation] = []
    opened: re.Match[str] | None = None
    end = 0
    for tag in _TAG.finditer(text):
        closing, name = tag.group(1) == "/", tag.group(2)
        if name == "tool_response":
            violations.append(
                Violation(
                    ViolationKind.INVENTED_OBSERVATION, "a tool response stands in the turn; only tools write them"
                )
            )
        if opened is None:
            if closing and name == "think" and half_open and not blocks and end == 0:
                blocks.append(_Block("think", text[: tag.start()]))
            else:
                _check_between(text[end : tag.start()], violations)
                if closing:
                    violations.append(Violation(ViolationKind.STRAY_TAG, f"{tag.group()} closes nothing"))
                else:
                    opened = tag
        elif closing and name == opened.group(2):
            if name != "tool_response":
                blocks.append(_Block(name, text[opened.end() : tag.start()]))
            opened = None
        else:
            violations.append(Violation(ViolationKind.STRAY_TAG, f"{tag.group()} stands inside {opened.group()}"))
        end = tag.end()
    if opened is not None:
        violations.append(Violation(ViolationKind.UNCLOSED_TAG, f"{opened.group()} is never closed"))
    else:
        _check_between(text[end:], violations)
    control = _CONTROL.search(text)
    if control:
        violations.append(
            Violation(ViolationKind.CONTROL_TOKEN, f"the control token {control.group()!r} stands in the turn")
        )
    return blocks, violations


def _check_between(text: str, violations: list[Violation]) -> None:
    """Note text that stands between two blocks, before the first or behind the last."""
    if text.strip():
        violations.append(Violation(ViolationKind.TEXT_OUTSIDE_TAGS, f"text outside the tags: {text.strip()[:80]!r}"))


def _thought(blocks: list[_Block], mode: CotMode, reasoning: str | None, violations: list[Violation]) -> str:
    """The turn's thought; what is wrong with it is added to `violations`."""
    thoughts = [block.text.strip() for block in blocks if block.tag == "think"]
    if len(thoughts) > 1:
        violations.append(Violation(ViolationKind.SEVERAL_THOUGHTS, f"got {len(thoughts)} think blocks, expected one"))
    if thoughts and blocks[0].tag != "think":
        violations.append(Violation(ViolationKind.WRONG_ORDER, "the thought must stand before the action"))
    thought = thoughts[0] if thoughts else ""
    if reasoning and reasoning.strip() and (mode is CotMode.LONG or not thoughts):
        thought = reasoning.strip()
        if _INVENTED.search(thought):
            violations.append(Violation(ViolationKind.INVENTED_OBSERVATION, "a tool response stands in the reasoning"))
        thought = neutralise(thought)
    if not thought:
        got = "an empty thought" if thoughts else "no <think> block"
        violations.append(Violation(ViolationKind.MISSING_THOUGHT, f"got {got}, expected a thought before the action"))
    return thought


def parse_call(text: str, extra: ExtraTools = NO_EXTRA) -> ToolCall | Violation:
    """The call that the text of a tool_call block holds."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        return Violation(ViolationKind.INVALID_JSON, f"the tool call is not valid JSON: {str(error)[:200]}")
    if not isinstance(value, dict) or set(value) != {"name", "arguments"}:
        got = ", ".join(map(repr, value))[:80] if isinstance(value, dict) else type(value).__name__
        return Violation(ViolationKind.NOT_A_CALL, f"got {got}, expected one object with 'name' and 'arguments'")
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return Violation(ViolationKind.NOT_A_CALL, "'name' must be a text and 'arguments' an object")
    try:
        # Half characters come from escapes only, or stand in the text as they are.
        if ("\\u" in text or _SURROGATE.search(text)) and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
            raise ArgumentError("a character is only half there (a lone surrogate)")
        check_call(name, arguments, extra)
    except UnknownToolError as error:
        return Violation(ViolationKind.UNKNOWN_TOOL, str(error))
    except ArgumentError as error:
        return Violation(ViolationKind.INVALID_ARGUMENTS, f"{name}: {error}")
    return ToolCall(name, arguments)


def _reject_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is no JSON value")


def _unique_keys(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


_DECODER = json.JSONDecoder(parse_constant=_reject_constant, object_pairs_hook=_unique_keys)


def render_turn(turn: Turn) -> str:
    """The turn in the layout of the release.

    Raises:
        ValueError: the thought or the answer holds a tag, so that the text would not parse back.
    """
    return f"<think>\n{_plain(turn.thought)}\n</think>\n{render_action(turn)}"


def render_action(turn: Turn) -> str:
    """The turn without its thought, as the long-CoT teacher sees its earlier turns.

    Raises:
        ValueError: the answer holds a tag, or the turn has neither a call nor an answer.
    """
    if turn.call is not None:
        call = _ENCODER.encode({"name": turn.call.name, "arguments": turn.call.arguments})
        # A tag inside an argument would end the block: its first character is written as JSON can also write it.
        call = _FOREIGN.escape(call)
        return f"<tool_call>\n{call}\n</tool_call>"
    if turn.answer is None:
        raise ValueError("a turn needs a call or an answer")
    return f"<answer>\n{_plain(turn.answer)}\n</answer>"


def _plain(text: str) -> str:
    if "<" in text and (_TAG.search(text) or _CONTROL.search(text)):
        raise ValueError(f"a tag or control token stands in {text[:80]!r}")
    return text


def render_tool_response(observation: str) -> str:
    """The user turn that brings an observation; the observation is neutralised."""
    return f"<tool_response>\n{neutralise(observation)}\n</tool_response>"


def describe_violations(violations: list[Violation]) -> str:
    """The observation that answers an invalid turn: one line, naming its first violations."""
    details = "; ".join(f"{kind.value}: {detail}" for kind, detail in violations[:_MAX_TOLD])
    return neutralise(
        f"Error: the turn does not follow the format ({' '.join(details.split())}). Write one thought in think tags, "
        "then either one tool call or one answer in their tags, and nothing else."
    )
