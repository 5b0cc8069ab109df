"""The roles that pass judgement: the judge of answers and the critic of trajectories, and the answerer without tools."""

import json
import re
from itertools import zip_longest
from typing import NamedTuple

from webdancer.judge.match import exact_match, normalise
from webdancer.scribe.guess import guess_answer
from webdancer.scribe.knowledge import Knowledge
from webdancer.scribe.mentions import DATE
from webdancer.scribe.observations import read_snippets
from webdancer.scribe.question import parse_question
from webdancer.scribe.relations import word_set

_NAME = re.compile(r"[A-ZÀ-ÖØ-Þ][\w'’-]+(?: (?:(?:of|for|under|beyond|the) )*[A-ZÀ-ÖØ-Þ][\w'’-]*)*")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_REFUSAL = re.compile(r"\b(?:not|no|never|unknown|cannot|either|or)\b|n't\b", re.IGNORECASE)
_PART = re.compile(r"^(Thought|Call|Result) (\d+):$", re.MULTILINE)


class JudgeReply(NamedTuple):
    """The judge's word."""

    reason: str
    correct: bool


def judge(reference: str, answer: str) -> JudgeReply:
    """Whether an answer says the same as the reference."""
    if exact_match(reference, answer):
        return JudgeReply("The answer is the reference in its normal form.", True)
    if not answer.strip():
        return JudgeReply("There is no answer.", False)
    wanted, got = normalise(reference), normalise(answer)
    if not re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", got):
        return JudgeReply("The answer names something else than the reference.", False)
    rest = re.sub(rf"(?<!\w){re.escape(wanted)}(?!\w)", " ", got, count=1)
    others = [n for n in _NAME.findall(answer) if normalise(n) not in wanted and not answer.startswith(n)]
    if _REFUSAL.search(rest) or re.search(r"\d", rest) or others:
        return JudgeReply("The reference stands in the answer, but something else does too.", False)
    return JudgeReply("The answer holds the reference, and the words around it change nothing.", True)


def answer_directly(question: str, results: str) -> str:
    """The best answer without tools, from snippets if there are any."""
    form = parse_question(question)
    knowledge, hits = read_snippets(results) if results else (Knowledge(), ())
    if form is not None:
        outcome = knowledge.work_off(form)
        if outcome.value is not None:
            return outcome.value.text
    return guess_answer(form, knowledge, hits, question)


class CriticReply(NamedTuple):
    """The critic's word on the four points."""

    comment: str
    non_redundant: bool
    goal_aligned: bool
    logical: bool
    accurate: bool


class _Steps(NamedTuple):
    thoughts: list[str]
    calls: list[str]
    results: list[str]
    answer: str
    in_order: list[tuple[str, str]]


def criticise(question: str, trajectory: str) -> CriticReply:
    """Judge the way to an answer that is known to be right.

    Of questions in other words than the scribe's own it can only say whether a call was repeated: what searchers know
    by themselves or put in their own words is no fault.
    """
    steps = _read_steps(trajectory)
    repeated = _repeated_call(steps)
    if parse_question(question) is None:
        return CriticReply(repeated or "Nothing speaks against the way.", not repeated, True, True, True)
    invented = _unseen_name(question, steps)
    groundless = _groundless_answer(steps)
    aimless = _aimless_call(question, steps)
    comment = repeated or invented or groundless or aimless or "Every step follows from what was read."
    return CriticReply(comment, not repeated, not aimless, not groundless, not invented)


def _read_steps(trajectory: str) -> _Steps:
    body, _, answer = trajectory.rpartition("Answer:\n")
    marks = list(_PART.finditer(body))
    steps = _Steps([], [], [], answer.strip(), [])
    for mark, following in zip_longest(marks, marks[1:]):
        text = body[mark.end() : following.start() if following else len(body)].strip()
        {"Thought": steps.thoughts, "Call": steps.calls, "Result": steps.results}[mark[1]].append(text)
        steps.in_order.append((mark[1], text))
    return steps


def _repeated_call(steps: _Steps) -> str:
    """A call that had brought its result already."""
    done: set[str] = set()
    call = ""
    for kind, text in steps.in_order:
        if kind == "Call":
            call = _normal_call(text)
            if call in done:
                return f"The call {text[:80]!r} is made twice."
        elif kind == "Result" and not text.startswith("Error:"):
            done.add(call)
    return ""


def _normal_call(text: str) -> str:
    tool, _, arguments = text.partition(" ")
    try:
        return f"{tool} {json.dumps(json.loads(arguments), sort_keys=True).casefold()}"
    except ValueError:
        return text.casefold()


def _unseen_name(question: str, steps: _Steps) -> str:
    """A name, number or date in a thought that neither the question nor an earlier result holds."""
    seen = normalise(question)
    cut = False
    for kind, text in steps.in_order:
        if kind == "Result":
            seen += " " + normalise(text)
            cut = cut or text.endswith("more characters]")
        elif kind == "Thought" and not cut:
            for name in (*_names(text), *re.findall(DATE, text), *_numbers(text)):
                if not _holds(seen, name):
                    return f"No result shows {name!r}, which a thought claims."
    return ""


def _names(text: str) -> list[str]:
    """Names of two words and more; single capitalised words may just open a sentence."""
    found = []
    for match in _NAME.finditer(text):
        name = match[0]
        first = name.split(" ", 1)[0]
        at_start = match.start() == 0 or text[: match.start()].rstrip().endswith((".", ":", "?", "!", ";"))
        if at_start and first.lower() in _OPENERS:
            name = name.partition(" ")[2]
        if " " in name:
            found.append(name)
    return found


_OPENERS = word_set(
    "i the a an so now next first then that this these only still from to in on at for with as it its not none nothing every"
    " let perhaps another what who where when which search counting since because found again"
)


def _numbers(text: str) -> list[str]:
    return [n for n in _NUMBER.findall(re.sub(DATE, " ", text)) if len(n) == 4 and n.isdigit()]


def _holds(seen: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(normalise(name))}(?!\w)", seen) is not None


def _groundless_answer(steps: _Steps) -> str:
    """An answer that no result leads to: it stands in none, and is no number that can be counted from one."""
    if not steps.results:
        return "The answer rests on no result."
    if any(text.endswith("more characters]") for text in steps.results):
        return ""
    seen = normalise("\n".join(steps.results))
    if _holds(seen, steps.answer):
        return ""
    if steps.answer.isdigit():
        rows = max(
            sum(1 for line in text.splitlines() if line.startswith("- ") or " | " in line) for text in steps.results
        )
        if int(steps.answer) <= rows:
            return ""
    return f"The answer {steps.answer[:80]!r} stands in no result."


def _aimless_call(question: str, steps: _Steps) -> str:
    """A call about something that neither the question nor a result before it holds."""
    seen = normalise(question)
    for kind, text in steps.in_order:
        if kind == "Result":
            seen += " " + normalise(text)
        elif kind == "Call":
            for name in _names(text.partition(" ")[2]):
                if not _holds(seen, name):
                    return f"The call about {name!r} serves nothing that was asked or found."
    return ""
