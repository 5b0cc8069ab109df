"""Faults that the scribe commits on purpose as a teacher, so that the funnel has real work (paper, section 3.2).

At most one fault an episode, drawn from the episode's seed and question alone, and labelled in the fault log when it is
planted, so that the funnel's recall and precision can be measured.
"""

import json
import threading
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from webdancer.config import ScribeFaultSettings
from webdancer.scribe.prompt import seeded


class FaultKind(StrEnum):
    """The faults, named as in `ScribeFaultSettings`."""

    BROKEN_JSON = "broken_json"
    UNKNOWN_TOOL = "unknown_tool"
    TWO_ACTIONS = "two_actions"
    INVENTED_OBSERVATION = "invented_observation"
    REPETITION = "repetition"
    WRONG_ANSWER = "wrong_answer"
    GIVING_UP = "giving_up"


class Fault(NamedTuple):
    """A fault and the turn, counted from 0, at which it is due; a wrong answer is due with the answer."""

    kind: FaultKind
    turn: int


def draw_fault(settings: ScribeFaultSettings | None, *, seed: int | None, question: str) -> Fault | None:
    """The fault of an episode, or None."""
    if settings is None:
        return None
    rng = seeded("fault", seed, question)
    draw = rng.random()
    for kind in FaultKind:
        rate: float = getattr(settings, kind.value)
        if draw < rate:
            return Fault(kind, rng.randint(1, 2) if kind is FaultKind.GIVING_UP else rng.randint(0, 2))
        draw -= rate
    return None


class FaultLog:
    """Appends the labels of planted faults to a file, one JSON object a line, each fault once."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def add(self, fault: Fault, *, seed: int | None, question: str, turn: int) -> None:
        """Note a fault that is being planted at `turn`."""
        if self._path is None:
            return
        line = json.dumps(
            {"seed": seed, "question": question, "turn": turn, "fault": fault.kind.value}, ensure_ascii=False
        )
        with self._lock:
            if line not in self._seen:
                self._seen.add(line)
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


def break_json(call: str) -> str:
    """The call with its last brackets lost."""
    return call.rstrip("}").rstrip("]").rstrip()


def repeat_thought(thought: str, num: int) -> str:
    """A thought that has got stuck in one sentence of at least ten words."""
    stuck = "I have to look at the page again to be sure of what it says about this."
    return " ".join([thought, *([stuck] * num)])
