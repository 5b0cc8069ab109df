"""The agent role: one turn of an episode, planned anew from the messages each time."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from .facts import find
from .observations import Episode, Hit
from .prompt import rng_of
from .questions import Ask, Named, Relation, Target, named_ask, parse_question
from .reading import Reading
from .reviewing import guess

_NUM_QUERIES = 2
"""Searches for one page before it is given up."""


@dataclass(frozen=True, slots=True)
class Slips:
    """Shares of turns (of episodes: `wrong_answer`) with a slip of one kind, of JSON replies, and of counts."""

    broken_json: float = 0.015
    unknown_tool: float = 0.01
    two_actions: float = 0.01
    loose_text: float = 0.015
    repeat: float = 0.01
    wrong_answer: float = 0.05
    malformed: float = 0.02
    miscount: float = 0.03


NO_SLIPS = Slips(0, 0, 0, 0, 0, 0, 0, 0)


class Turn(NamedTuple):
    """A thought and what is done on it."""

    thought: str
    tool: str = ""
    arguments: Mapping[str, object] = MappingProxyType({})
    answer: str = ""


class _NeedError(Exception):
    """Something must be looked up first: the turn that does it."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(turn.thought)
        self.turn = turn


class _StuckError(Exception):
    """The web does not tell it; the message says what."""


def take_turn(episode: Episode, *, seed: int | None, slips: Slips) -> tuple[str, str]:
    """The next turn as (thought, action); slips follow from the seed, the question and the turn's number."""
    rng = rng_of("turn", seed, episode.question, episode.num_turns)
    ask = parse_question(episode.question)
    turn = Turn("I do not understand what is asked.", answer="unknown") if ask is None else _plan(ask, episode, rng)
    if ask and turn.answer and rng_of("wrong", seed, episode.question).random() < slips.wrong_answer:
        turn = turn._replace(answer=guess(ask, [hit.name for hit in episode.hits], rng))
    return turn.thought, _action(turn, episode, rng, slips)


def _plan(ask: Ask, episode: Episode, rng: random.Random) -> Turn:
    if episode.is_forced:
        return Turn("I must answer now and guess.", answer=guess(ask, [hit.name for hit in episode.hits], rng))
    try:
        target = _resolve(ask.target, episode)
        if ask.relation is Relation.BOTH and ask.other is not None:
            return _both(ask, target, _resolve(ask.other, episode), episode)
        answer, line = _look_up(replace(ask, target=target), target, episode)
    except _NeedError as need:
        return need.turn
    except _StuckError as stuck:
        answer = guess(ask, [hit.name for hit in episode.hits], rng)
        return Turn(f"{stuck} I have nothing better than a guess.", answer=answer)
    return Turn(f'The documentation of {target} says: "{line[:160]}" So the answer is {answer}.', answer=answer)


def _both(ask: Ask, first: Named, second: Named, episode: Episode) -> Turn:
    """The one name that two lists share."""
    lists = [set(_look_up(replace(ask, target=t, other=t), t, episode)[0].split(", ")) for t in (first, second)]
    common = sorted(lists[0] & lists[1])
    if not common:
        raise _StuckError("The two lists have nothing in common.")
    return Turn(f"The lists of {first} and of {second} have {', '.join(common)} in common.", answer=common[0])


def _resolve(target: Target, episode: Episode) -> Named:
    """The name that a target stands for, from the inside out."""
    if isinstance(target, Named):
        return target
    source = _resolve(target.of, episode)
    name, _ = _look_up(named_ask(target.noun, target.side, target.words, source), source, episode)
    return Named(name, target.noun)


def _look_up(ask: Ask, of: Named, episode: Episode) -> tuple[str, str]:
    """The answer to a question about a named target, and the line that states it."""
    hit = _page_of(of, episode)
    goal = str(ask)
    if (hit.url, goal) not in episode.reports:
        thought = f"The page of {of} is {hit.url}. I read it to learn: {_short(ask)}."
        raise _NeedError(Turn(thought, "visit", {"url": hit.url, "goal": goal}))
    found = find(Reading.of(hit.title, episode.reports[hit.url, goal]), ask)
    if found is None:
        raise _StuckError(f"The page of {of} does not tell what I was looking for.")
    return found.answer, found.lines[-1]


def _page_of(target: Named, episode: Episode) -> Hit:
    """The search result that is the target's own page."""
    for hit in episode.hits:
        if hit.name == target.name:
            return hit
    queries = (f"{target.name} {target.noun}", f"{target.name} Python documentation")
    for query in queries[:_NUM_QUERIES]:
        if query not in episode.queries:
            start = "I begin with" if not episode.queries else "Next I need the page of"
            raise _NeedError(Turn(f"{start} {target}, so I search for it.", "search", {"query": [query]}))
    raise _StuckError(f"No search result is the page of {target}.")


def _short(ask: Ask) -> str:
    """What is looked up, in few words."""
    return f"which {ask.details[0]} it names there" if ask.relation is Relation.NAMED else ask.relation.name.lower()


def _action(turn: Turn, episode: Episode, rng: random.Random, slips: Slips) -> str:
    """The turn's action in its tags, perhaps with a slip."""
    if turn.answer:
        return f"<answer>\n{turn.answer}\n</answer>"
    name, arguments = turn.tool, turn.arguments
    draw = rng.random()
    shares = (slips.broken_json, slips.unknown_tool, slips.two_actions, slips.loose_text, slips.repeat)
    kind = next((n for n in range(len(shares)) if draw < sum(shares[: n + 1])), None)
    if kind == 1:
        name = rng.choice(("browse", "open_page", "google"))
    if kind == 4 and episode.queries:
        name, arguments = "search", {"query": [episode.queries[-1]]}
    # A tag inside an argument would end the block: its `<` is written as JSON can also write it.
    call = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False).replace("<", "\\u003c")
    block = f"<tool_call>\n{call[:-2] if kind == 0 else call}\n</tool_call>"
    if kind == 2:
        return f"{block}\n{block}"
    return f"Let me look that up.\n{block}" if kind == 3 else block
