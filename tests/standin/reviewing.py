"""The roles that read what others wrote: summariser, judge, critic, and the answerer without tools."""

import random
import re

from .facts import find
from .observations import Hit, read_hits
from .prompt import PromptPage
from .questions import COUNTING, VERSIONS, Ask, Named, Relation, Target, parse_question
from .reading import Mention, Reading

_WORD = re.compile(r"\w+")
_PART = re.compile(r"^(?:(Thought|Call|Result) \d+|(Answer)):\n", re.MULTILINE)
_VERSION = re.compile(r"\b\d\.\d+\b")
_TOKEN = r"[\w.]*\w"
_FILLER = frozenset(("the", "a", "an", "in", "it", "is", "python", "version"))
_DOUBT = frozenset(("or", "either", "not", "maybe", "unknown"))
_MAX_SUMMARY_CHARS = 300
_NUM_NEAR_LINES = 3
_GUESSES = {
    Relation.RFC: ("RFC 822", "RFC 2822", "RFC 2616"),
    Relation.PEP: ("PEP 8", "PEP 3000", "PEP 484"),
    Relation.DEFAULT: ("0", "1", "-1", "utf-8"),
    Relation.SOURCE: ("Lib/os.py", "Lib/string.py", "Lib/re.py"),
}


def summarise(goal: str, page: PromptPage) -> dict[str, object]:
    """The lines that answer the goal where it is a question that is understood; else those that share most words with it."""
    reading, ask = Reading.of(page.title, page.text), parse_question(goal)
    if ask is not None:
        found = find(reading, ask)
        if found is None:
            return {"rational": "No part serves the goal.", "evidence": "", "summary": "The page tells nothing of it."}
        lines = list(found.lines)
    else:
        wanted = set(_WORD.findall(goal.lower()))
        shared = {line: len(wanted.intersection(_WORD.findall(line.lower()))) for line in reading.lines}
        best = set(sorted(shared, key=lambda line: -shared[line])[:_NUM_NEAR_LINES])
        lines = [line for line in shared if line in best and shared[line] > 1]
    summary = f"{reading.name}: {' '.join(lines)}"[:_MAX_SUMMARY_CHARS] if lines else "The page tells nothing of it."
    return {
        "rational": f"{len(lines)} lines of the page serve the goal.",
        "evidence": "\n".join(lines),
        "summary": summary,
    }


def judge(reference: str, answer: str) -> dict[str, object]:
    """Correct where the answer says the reference's words in their order, and beside them no other name, number or doubt."""
    wanted, given = _tokens(reference), _tokens(answer)
    words = re.findall(_TOKEN, answer)
    at = next((i for i in range(len(given) - len(wanted) + 1) if given[i : i + len(wanted)] == wanted), None)
    rest = words if at is None else words[:at] + words[at + len(wanted) :]
    adds = [w for w in rest if w.casefold() not in _FILLER and not (w.isalpha() and w.islower() and w not in _DOUBT)]
    correct = bool(wanted) and at is not None and not adds
    return {"reason": "It says the same." if correct else "It says something else.", "correct": correct}


def _tokens(text: str) -> list[str]:
    return re.findall(_TOKEN, text.casefold())


def criticise(question: str, trajectory: str) -> dict[str, object]:
    """Repeated calls, queries that no text before them suggests, answers that no result holds, versions out of nowhere."""
    parts = _PART.split(trajectory)[1:]
    said = [(parts[i] or parts[i + 1], parts[i + 2].strip()) for i in range(0, len(parts), 3)]
    calls = [text for head, text in said if head == "Call"]
    results = "\n".join(text for head, text in said if head == "Result")
    answer = next((text for head, text in said if head == "Answer"), "")
    known = f"{question}\n{results}"
    versions = {version for head, text in said if head == "Thought" for version in _VERSION.findall(text)}
    points = {
        "non_redundant": len(set(calls)) == len(calls),
        "goal_aligned": all(set(_tokens(call)) & set(_tokens(known)) for call in calls),
        "logical": answer.isdecimal() or answer.casefold() in results.casefold(),
        "accurate": all(version in known for version in versions),
    }
    failed = [name for name, holds in points.items() if not holds]
    return {"comment": f"Falls short in {', '.join(failed)}." if failed else "A straight way.", **points}


def answer_directly(question: str, results: str, rng: random.Random) -> dict[str, object]:
    """What the search results tell of the question; else a guess of the answer's form."""
    ask = parse_question(question)
    if ask is None:
        return {"answer": "unknown"}
    hits = read_hits(results)
    target = _resolve(ask.target, hits)
    if target is not None and ask.relation is not Relation.BOTH:
        for hit in hits:
            if hit.name == target.name and (found := find(Reading.of(hit.title, f"# {hit.title}\n{hit.snippet}"), ask)):
                return {"answer": found.answer}
    return {"answer": guess(ask, [hit.name for hit in hits], rng)}


def _resolve(target: Target, hits: list[Hit]) -> Named | None:
    """The name that a target stands for, as far as snippets tell."""
    if isinstance(target, Named):
        return target
    source = _resolve(target.of, hits)
    for hit in hits:
        if source is not None and hit.name == source.name:
            name = Reading.of(hit.title, hit.snippet).named_beside(Mention(target.side, target.words), target.noun)
            if name:
                return Named(name, target.noun)
    return None


def guess(ask: Ask, names: list[str], rng: random.Random) -> str:
    """An answer of the form that the question asks for."""
    if ask.relation in COUNTING:
        return str(rng.randint(2, 12))
    if ask.relation is Relation.REMOVED:
        return rng.choice(("3.12", "3.13"))
    if ask.relation in VERSIONS:
        return f"3.{rng.randint(2, 11)}"
    if ask.relation in _GUESSES:
        return rng.choice(_GUESSES[ask.relation])
    return rng.choice(names or ["os", "sys", "string"])
