"""The scribe as searcher and teacher: one turn of an episode, short or long CoT (paper, section 3.1)."""

import json
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from webdancer.config import ScribeFaultSettings
from webdancer.llm.protocol import Message, Sampling
from webdancer.records import CotMode
from webdancer.scribe.faults import Fault, FaultKind, break_json, draw_fault, repeat_thought
from webdancer.scribe.guess import other_of_kind
from webdancer.scribe.logical import Lookup, Name
from webdancer.scribe.observations import Episode, read_episode
from webdancer.scribe.planner import Move, Plan, plan_next
from webdancer.scribe.prompt import seeded
from webdancer.scribe.thoughts import plain, write_thought

NUM_REPEATS = 7
"""How often the stuck sentence stands in a thought with that fault: more than any sensible limit of n-gram repeats."""


class TurnText(NamedTuple):
    """A turn: thought and action apart, and the fault that was planted in it."""

    thought: str
    action: str
    question: str
    turn: int
    fault: Fault | None = None


def take_turn(
    messages: Sequence[Message],
    sampling: Sampling,
    mode: CotMode,
    faults: ScribeFaultSettings | None,
    *,
    shortcuts: float = 0.0,
    vary: bool = True,
) -> TurnText:
    """The next turn of an episode.

    Args:
        messages: the episode so far.
        sampling: `seed` and `temperature` decide among wordings; temperature 0 or none takes the usual ones.
        mode: long CoT thinks at greater length.
        faults: rates of planted faults, or None for a searcher without any.
        shortcuts: share of steps at which the word of a post is good enough; at temperature 0 none is.
        vary: whether wordings vary at all.
    """
    episode = read_episode(messages)
    turn = sum(1 for message in messages if message.role == "assistant")
    has_chance = bool(sampling.temperature)
    vary = vary and has_chance
    rng = seeded("turn", sampling.seed, episode.question, turn) if vary else Random(0)

    def is_hasty(step: Lookup) -> bool:
        name = step.of.text if isinstance(step.of, Name) else ""
        return seeded("shortcut", sampling.seed, episode.question, step.relation, name).random() < shortcuts

    plan = plan_next(episode, rng, vary=vary, is_hasty=is_hasty if has_chance and shortcuts else None)
    is_long = mode is CotMode.LONG
    fault = draw_fault(faults, seed=sampling.seed, question=episode.question)
    if fault is None or not _is_due(fault, turn, plan, episode):
        thought = plain(write_thought(plan, episode, rng, is_long=is_long))
        return TurnText(thought, _action(plan), episode.question, turn)
    if fault.kind is FaultKind.WRONG_ANSWER:
        plan = plan._replace(answer=_wrong(plan, episode, sampling.seed or 0))
    elif fault.kind is FaultKind.GIVING_UP:
        text = "I do not get any further with this, so I stop here."
        return TurnText(text, _answer("I could not find the answer"), episode.question, turn, fault)
    thought = plain(write_thought(plan, episode, rng, is_long=is_long))
    if fault.kind is FaultKind.REPETITION:
        thought = repeat_thought(thought, NUM_REPEATS)
    return TurnText(thought, _faulty_action(fault, plan, rng, is_long=is_long), episode.question, turn, fault)


def _is_due(fault: Fault, turn: int, plan: Plan, episode: Episode) -> bool:
    """Whether the fault is planted in this turn. Episodes that end on a guess are faulty enough."""
    if fault.kind is FaultKind.WRONG_ANSWER:
        return plan.move is Move.ANSWER and not plan.is_guess
    return turn == fault.turn and plan.move is not Move.ANSWER and not episode.is_forced


def _wrong(plan: Plan, episode: Episode, seed: int) -> str:
    hits = [hit for turn in episode.turns for results in turn.results for hit in results.hits]
    return other_of_kind(plan.answer, plan.form, plan.knowledge, hits, seed)


def _action(plan: Plan) -> str:
    if plan.move is Move.ANSWER:
        return _answer(plan.answer)
    return _call(*_tool(plan))


def _tool(plan: Plan) -> tuple[str, dict[str, object]]:
    if plan.move is Move.SEARCH:
        return "search", {"query": list(plan.queries)}
    return "visit", {"url": plan.url, "goal": plan.goal}


def _answer(text: str) -> str:
    return f"<answer>\n{plain(text)}\n</answer>"


def _call(name: str, arguments: dict[str, object]) -> str:
    return f"<tool_call>\n{_json(name, arguments)}\n</tool_call>"


def _json(name: str, arguments: dict[str, object]) -> str:
    # A tag inside an argument would end the block: its `<` is written as JSON can also write it.
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False).replace("<", "\\u003c")


def _faulty_action(fault: Fault, plan: Plan, rng: Random, *, is_long: bool) -> str:
    """The action with its fault."""
    if plan.move is Move.ANSWER:
        return _action(plan)
    name, arguments = _tool(plan)
    match fault.kind:
        case FaultKind.BROKEN_JSON:
            return f"<tool_call>\n{break_json(_json(name, arguments))}\n</tool_call>"
        case FaultKind.UNKNOWN_TOOL:
            return _call(rng.choice(("browse", "google", "open_page", "lookup")), arguments)
        case FaultKind.TWO_ACTIONS:
            return f"{_action(plan)}\n{_call('search', {'query': [_subject(plan)]})}"
        case FaultKind.INVENTED_OBSERVATION:
            return f"{_action(plan)}\n{_invented(plan, is_long=is_long)}"
        case _:
            return _action(plan)


def _subject(plan: Plan) -> str:
    return plan.goal or " ".join(plan.queries) or "more about it"


def _invented(plan: Plan, *, is_long: bool) -> str:
    """A result that no tool gave, and the next call, which rests on it."""
    if plan.move is Move.SEARCH:
        url = "http://wiki.invented.example/wiki/Page"
        body = f'A search for "{plan.queries[0]}" found 1 result:\n\n## Web Results\n1. [{plan.queries[0]}]({url})'
    else:
        url = plan.url
        body = f'What {url} says about the goal "{plan.goal}":\n\nEvidence in page:\n\nSummary:\nThe page tells it.'
    response = f"<tool_response>\n{plain(body)}\n</tool_response>"
    thought = "" if is_long else "<think>\nNow I know the page, so I read it.\n</think>\n"
    return f"{response}\n{thought}{_call('visit', {'url': url, 'goal': _subject(plan)})}"
