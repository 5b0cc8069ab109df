"""Checks of questions and descriptions as texts: is it a question, does it give its answer away, is the name gone?

Pure functions over strings. They compare tokens: case, accents and punctuation do not count, numbers are whole tokens,
and every Chinese, Japanese or Korean character is a token of its own, because those scripts do not part their words.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from webdancer.records import QAKind
from webdancer.synth.outcomes import DropReason

MAX_ANSWER_CHARS = 100
"""A longer answer is a sentence, which no exact match can score."""

MIN_EVIDENCE_PAGES = 2
"""A question that fewer pages answer needs no agent."""

_MIN_STEM = 4
"""A name of at least so many letters is given away by a longer word that opens with it: Belmar, Belmarian."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_REFERS_TO_PAGE = re.compile(
    r"\b(?:this|these|above|given|provided|mentioned) (?:web ?)?(?:pages?|texts?|articles?|passages?|documents?)\b"
    r"|\b(?:according to|in|on|from) the (?:pages?|texts?|passages?|documents?)\b"
    r"|本页|本文|此页|上文|该页面",
    re.IGNORECASE,
)
_ARTICLES = frozenset({"a", "an", "the"})


def tokens(text: str) -> list[str]:
    """Words and numbers of a text, folded: no case, accents, punctuation or thousands separators."""
    if text.isascii():
        return _TOKEN.findall(_THOUSANDS.sub("", text.lower()))
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    folded = "".join(char for char in folded if not unicodedata.combining(char))
    return _TOKEN.findall(unicodedata.normalize("NFC", _THOUSANDS.sub("", folded)))


def fold(text: str) -> str:
    """A text's tokens joined by spaces: equal for texts that differ in case and punctuation only."""
    return " ".join(tokens(text))


def contains_name(text: str, name: str) -> bool:
    """Whether `name` stands in `text` as whole words. The last word may go on, unless it is short or a number."""
    wanted = fold(name)
    if not wanted:
        return False
    end = "" if len(wanted) >= _MIN_STEM and not wanted[-1].isdigit() else " "
    return f" {wanted}{end}" in f" {fold(text)} "


def question_hash(question: str) -> str:
    """Eight hex digits that stand for the question in ids."""
    return hashlib.sha256(fold(question).encode()).hexdigest()[:8]


def base_title(title: str) -> str:
    """A page's title without what tells it from its namesakes or names its site: `Ana Velk (architect) | Wiki`."""
    title = re.split(r" [|–—·-] ", title, maxsplit=1)[0]
    return re.sub(r"\s*\([^()]*\)\s*$", "", title).strip() or title.strip()


def check_question(question: str, answer: str, kind: QAKind | None) -> tuple[DropReason, str] | None:
    """What is wrong with a question and its answer by themselves; `kind` is None for the simple questions."""
    if not question.endswith(("?", "？")) or len(tokens(question)) < 3:
        return DropReason.NOT_A_QUESTION, question[-40:]
    if found := _REFERS_TO_PAGE.search(question):
        return DropReason.REFERS_TO_PAGE, found.group()
    if not tokens(answer):
        return DropReason.EMPTY_ANSWER, ""
    if len(answer) > MAX_ANSWER_CHARS or "\n" in answer:
        return DropReason.LONG_ANSWER, f"{len(answer)} characters"
    if kind is QAKind.COUNT and not answer.isdecimal():
        return DropReason.NOT_A_NUMBER, answer
    if contains_name(question, answer):
        return DropReason.LEAKS_ANSWER, answer
    return None


def check_evidence(
    urls: Iterable[str], given: Iterable[str], *, num_pages: int = MIN_EVIDENCE_PAGES
) -> tuple[DropReason, str] | None:
    """What is wrong with a question's evidence: pages that were not given, or fewer than `num_pages` of them."""
    evidence = set(urls)
    if outside := evidence - set(given):
        return DropReason.EVIDENCE_OUTSIDE, min(outside)
    if len(evidence) < num_pages:
        return DropReason.TOO_FEW_PAGES, f"{len(evidence)} of {num_pages}"
    return None


def telling_parts(entity: str, usage: str) -> list[str]:
    """The words of a name that give it away: `Orsk` of `Orsk Bridge`.

    A word that `usage` also writes in lower case (`bridge`) is an ordinary word. Where all are, the name's parts
    tell nothing, and only the name as a whole does.
    """
    ordinary = set(re.findall(r"\b[a-z]\w*", usage))
    words = [word for word in re.findall(r"[^\W_]+", entity) if len(word) > 1]
    return [w for w in words if not w.isdecimal() and w.lower() not in ordinary and w.lower() not in _ARTICLES]


def check_description(description: str, *, entity: str, answer: str, question: str, knowledge: str) -> str | None:
    """Why a description may not take the entity's place, or None."""
    if not re.match(r"the\s", description, re.IGNORECASE) and not re.match(r"[\u3400-\u9fff]", description):
        return f"does not start with 'the': {description[:40]!r}"
    if contains_name(description, entity):
        return f"names the entity {entity!r}"
    for part in telling_parts(entity, f"{knowledge}\n{question}\n{description}"):
        if contains_name(description, part):
            return f"holds {part!r} of the name {entity!r}"
    if contains_name(description, answer):
        return f"holds the answer {answer!r}"
    if len(tokens(description)) < 3 and not re.search(r"[\u3400-\u9fff]{4}", description):
        return f"says too little: {description!r}"
    if contains_name(question, description):
        return "stands in the question already"
    return None


def check_rewrite(rewritten: str, *, entity: str, description: str, answer: str) -> str | None:
    """Why a rewritten question does not do, or None."""
    if problem := check_question(rewritten, answer, None):
        return f"{problem[0]}: {problem[1]}"
    if contains_name(rewritten, entity):
        return f"still names {entity!r}"
    if fold(description).removeprefix("the ") not in fold(rewritten):
        return "does not hold the description"
    return None
