"""Plants one fault of a chosen kind into a clean trajectory, as text, the way a model would have written it.

The altered turns go through the importer, so that the planted trajectory is what our own reader makes of them. Shared by
the tests and benchmarks/funnel.py.
"""

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from webdancer.judge.match import exact_match
from webdancer.records import Trajectory, VerdictReason, VerdictStage
from webdancer.trajectories.import_release import ReleasedMessage, released_turns, to_trajectory

R, S = VerdictReason, VerdictStage
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]")
_STUCK = "I should look at the results once more before I go on with this question."
_CALL = re.compile(r"<tool_call>\n(.*)\n</tool_call>", re.DOTALL)


class Plant(NamedTuple):
    """A kind of fault: how it is planted, and where and why it must fall."""

    alter: Callable[[list[str], Random, str], list[str]]
    """From the turns (the model's and the tool's in turn), a generator of chance and a wrong answer, the altered turns."""
    stage: VerdictStage
    reasons: frozenset[VerdictReason]
    is_format: bool = False


def plant(trajectory: Trajectory, kind: str, *, wrong_answer: str, seed: int = 0) -> Trajectory:
    """The trajectory with one fault of `kind`."""
    rng = Random(f"{seed} {kind} {trajectory.id}")
    turns = PLANTS[kind].alter(released_turns(trajectory), rng, wrong_answer)
    roles = ["assistant", "user"] * len(turns)
    messages = [
        ReleasedMessage(role="system", content=""),
        ReleasedMessage(role="user", content=f"\n\nUser: {trajectory.question}"),
        *(ReleasedMessage(role=role, content=text) for role, text in zip(roles, turns, strict=False)),
    ]
    planted = to_trajectory(messages, trajectory_id=f"{trajectory.id}+{kind}")
    return planted.model_copy(update={"qa_id": trajectory.qa_id})


def wrong_answer(trajectory: Trajectory, others: list[Trajectory], rng: Random) -> str:
    """The answer of another trajectory that is not the right one here."""
    while True:
        answer = rng.choice(others).answer or ""
        if answer and not exact_match(trajectory.answer or "", answer):
            return answer


def _on_call(change: Callable[[str, Random], str]) -> Callable[[list[str], Random, str], list[str]]:
    """Alter one of the turns that hold a call."""

    def alter(turns: list[str], rng: Random, wrong: str) -> list[str]:
        i = rng.choice([i for i, turn in enumerate(turns) if i % 2 == 0 and "<tool_call>" in turn])
        return [*turns[:i], change(turns[i], rng), *turns[i + 1 :]]

    return alter


def _on_any(change: Callable[[str, Random], str]) -> Callable[[list[str], Random, str], list[str]]:
    """Alter one of the model's turns."""

    def alter(turns: list[str], rng: Random, wrong: str) -> list[str]:
        i = rng.choice(range(0, len(turns), 2))
        return [*turns[:i], change(turns[i], rng), *turns[i + 1 :]]

    return alter


def _in_call(*changes: Callable[[str], str]) -> Callable[[list[str], Random, str], list[str]]:
    """Alter the text inside one call."""
    return _on_call(
        lambda turn, rng: _CALL.sub(lambda m: m.group().replace(m.group(1), rng.choice(changes)(m.group(1))), turn)
    )


def _broken_json() -> Callable[[list[str], Random, str], list[str]]:
    return _in_call(
        lambda call: call[:-1],
        lambda call: call[:-2].removesuffix("]"),
        lambda call: call.replace('"', "'"),
        lambda call: call[:-1] + ",}",
        lambda call: f"```json\n{call}\n```",
        lambda call: call.replace('"name": ', "name: ", 1),
        lambda call: call.replace('"arguments": {', '"arguments": {"note": "he said "hi"", ', 1),
    )


def _invented(turn: str, rng: Random) -> str:
    head = 'A search for "it" found 1 result:\n\n## Web Results\n1. [It](http://it.example/)\nIt is so.'
    behind = rng.choice(["", "\n<think>\nSo it is.\n</think>\n<answer>\nIt\n</answer>"])
    return f"{turn}\n<tool_response>\n{head}\n</tool_response>{behind}"


def _invented_in_thought(turn: str, rng: Random) -> str:
    head = rng.choice(
        [
            "A Google search for 'it all' found 10 results:\n\n## Web Results",
            'What http://it.example/ says about the goal "it":',
        ]
    )
    return turn.replace("<think>\n", f"<think>\nThe tool answered:\n{head}\nIt is so.\n", 1)


def _repetition(turn: str, rng: Random) -> str:
    thought = turn.split("</think>")[0].removeprefix("<think>\n")
    long = [sentence.strip() for sentence in _SENTENCE.findall(thought) if len(re.findall(r"\w+", sentence)) >= 10]
    stuck = rng.choice(long or [_STUCK])
    return turn.replace("\n</think>", " " + " ".join([stuck] * rng.randint(5, 9)) + "\n</think>", 1)


def _repeated_action(turns: list[str], rng: Random, wrong: str) -> list[str]:
    i = rng.choice([i for i, turn in enumerate(turns) if i % 2 == 0 and "<tool_call>" in turn])
    again = re.sub(r"<think>.*?</think>", "<think>\nOnce more.\n</think>", turns[i], flags=re.DOTALL)
    return [*turns[: i + 2], *[again, turns[i + 1]] * 2, *turns[i + 2 :]]


def _answering(*texts: str) -> Callable[[list[str], Random, str], list[str]]:
    """Answer by one of `texts`, or by the wrong answer where there are none."""

    def alter(turns: list[str], rng: Random, wrong: str) -> list[str]:
        text = rng.choice(texts) if texts else wrong
        answer = f"<answer>\n{text}\n</answer>"
        return [*turns[:-1], re.sub(r"<answer>.*</answer>", lambda m: answer, turns[-1], flags=re.DOTALL)]

    return alter


def _stopping(turns: list[str], rng: Random, wrong: str) -> list[str]:
    """End with the last call, without any answer."""
    return turns[:-2]


def _format(alter: Callable[[list[str], Random, str], list[str]], *reasons: VerdictReason) -> Plant:
    return Plant(alter, S.VALIDITY, frozenset(reasons), is_format=True)


PLANTS = {
    "broken_json": _format(_broken_json(), R.INVALID_JSON),
    "not_a_call": _format(
        _in_call(lambda c: f"[{c}]", lambda c: c.replace('"arguments"', '"parameters"'), lambda c: '"search"'),
        R.INVALID_JSON,
    ),
    "unknown_tool": _format(
        _on_call(
            lambda t, rng: re.sub(
                r'"name": "\w+"', f'"name": "{rng.choice(("browse", "google", "Search", "answer"))}"', t
            )
        ),
        R.UNKNOWN_TOOL,
    ),
    "invalid_arguments": _format(
        _in_call(
            lambda c: c.replace('"query": ', '"queries": ').replace('"goal": ', '"aim": '),
            lambda c: re.sub(r'"arguments": .*', '"arguments": {}}', c, flags=re.DOTALL),
            lambda c: c.replace('"arguments": {', '"arguments": {"top_k": 5, '),
        ),
        R.INVALID_ARGUMENTS,
    ),
    "two_actions": _format(
        _on_call(lambda t, rng: t + "\n" + rng.choice([t, t.split("</think>\n")[1]])), R.SEVERAL_ACTIONS
    ),
    "call_and_answer": _format(_on_call(lambda t, rng: t + "\n<answer>\nIt\n</answer>"), R.SEVERAL_ACTIONS),
    "invented_observation": _format(_on_call(_invented), R.INVENTED_OBSERVATION),
    "no_thought": _format(
        _on_any(lambda t, rng: rng.choice(["", "<think>\n\n</think>\n"]) + t.split("</think>\n")[1]), R.NO_THOUGHT
    ),
    "two_thoughts": _format(_on_any(lambda t, rng: "<think>\nWell.\n</think>\n" + t), R.BROKEN_TAGS),
    "unclosed_tag": _format(
        _on_any(lambda t, rng: t.replace(rng.choice(["</think>", t[t.rindex("</") :]]), "")), R.BROKEN_TAGS
    ),
    "text_outside": _format(
        _on_any(lambda t, rng: rng.choice(["Sure!\n" + t, t + "\nDone.", t.replace("</think>\n", "</think>\nSo:\n")])),
        R.TEXT_OUTSIDE_TAGS,
    ),
    "control_token": _format(
        _on_any(lambda t, rng: rng.choice([t + "<|im_end|>", t.replace("<think>\n", "<think>\n<|im_start|>", 1)])),
        R.BROKEN_TAGS,
    ),
    "no_answer": _format(_stopping, R.NOT_ANSWERED),
    "empty_answer": _format(_answering("", " \n"), R.NOT_ANSWERED),
    "giving_up": Plant(
        _answering(
            "I could not find the answer", "I don't know.", "Unknown", "I'm sorry, but no answer could be found."
        ),
        S.CORRECTNESS,
        frozenset({R.WRONG_ANSWER}),
    ),
    "wrong_answer": Plant(_answering(), S.CORRECTNESS, frozenset({R.WRONG_ANSWER})),
    "repetition": Plant(_on_any(_repetition), S.RULES, frozenset({R.REPETITION})),
    "invented_in_thought": Plant(_on_any(_invented_in_thought), S.RULES, frozenset({R.INVENTED_OBSERVATION})),
    "repeated_action": Plant(_repeated_action, S.RULES, frozenset({R.REPEATED_ACTION})),
}
"""All kinds. `is_format` marks those that break the format or leave the answer out."""
