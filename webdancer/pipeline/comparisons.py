"""Picks held-out questions whose episodes show what training changed: the same question, before and after each stage."""

from pathlib import Path
from typing import NamedTuple

from webdancer.eval.training_html import Comparison
from webdancer.records import QA, EvalResult, Trajectory
from webdancer.store import read_records

_SHOWN = ("base", "sft", "rl")


class _Wanted(NamedTuple):
    """A pattern of right and wrong answers, and how many such questions are shown."""

    title: str
    right: tuple[bool, ...]
    num_shown: int


_WANTED = (
    _Wanted("wrong after SFT, right after DAPO", (False, False, True), 2),
    _Wanted("right after SFT and after DAPO", (False, True, True), 1),
    _Wanted("right after SFT, wrong after DAPO", (False, True, False), 1),
    _Wanted("wrong all along", (False, False, False), 1),
)


def choose_comparisons(path: Path) -> list[Comparison]:
    """Up to five questions, those with the shortest episodes first; none where a checkpoint was not evaluated."""
    results = {name: _by_question(path / "eval" / f"{name}.jsonl") for name in _SHOWN}
    if not all(results.values()):
        return []
    trajectories = {name: _episodes(path / "eval" / f"{name}_trajectories.jsonl") for name in _SHOWN}
    chosen = []
    for wanted in _WANTED:
        fitting = [
            qa
            for qa in read_records(path / "heldout_qa.jsonl", QA)
            if all(qa.id in results[name] and qa.id in trajectories[name] for name in _SHOWN)
            and tuple(results[name][qa.id].exact_match for name in _SHOWN) == wanted.right
        ]
        fitting.sort(key=lambda qa: (sum(results[name][qa.id].num_turns for name in _SHOWN), qa.id))
        for qa in fitting[: wanted.num_shown]:
            episodes = {name: (trajectories[name][qa.id], results[name][qa.id].exact_match) for name in _SHOWN}
            chosen.append(Comparison(wanted.title, qa, episodes))
    return chosen


def _by_question(path: Path) -> dict[str, EvalResult]:
    return {result.qa_id: result for result in read_records(path, EvalResult)}


def _episodes(path: Path) -> dict[str, Trajectory]:
    return {trajectory.qa_id: trajectory for trajectory in read_records(path, Trajectory)}
