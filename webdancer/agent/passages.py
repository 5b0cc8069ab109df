"""Chooses the parts of a long page that are nearest to a goal, when the summariser cannot be shown all of it.

Passages are runs of whole lines. A passage scores by the goal's words that it holds, rare words of the page counting more;
text of scripts without spaces (Chinese, Japanese, Thai …) and Korean is compared by pairs of characters. Pure; no index is
built, since it serves one page and one goal. A ranker may put the best of them into another order (`agent.dense`).
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

_PASSAGE_CHARS = 800
_MIN_RANKED = 30
_MAX_RANKED = 60
"""A ranker sees twice as many of the best passages as there is room for, within these bounds."""
_UNSPACED = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese, Chinese
    "\uac00-\ud7af"  # Korean has spaces, but its particles cling to the words
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
)
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")
_SENTENCE_END = re.compile(r"[.!?…][\"')\]”’]* |[。！？]")
_PAIRED = re.compile(rf"[{_UNSPACED}]")


class PassageRanker(Protocol):
    """Judges passages by their meaning."""

    def scores(self, goal: str, passages: Sequence[str]) -> list[float]:
        """How near each passage is to the goal; more is nearer."""
        ...


def terms(text: str) -> list[str]:
    """Words in lower case; runs of characters of scripts without spaces as their overlapping pairs."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if len(word) > 1 and _PAIRED.match(word):
            found += [word[i : i + 2] for i in range(len(word) - 1)]
        else:
            found.append(word)
    return found


def choose_passages(text: str, goal: str, *, max_chars: int, ranker: PassageRanker | None = None) -> str:
    """`text` itself where it fits `max_chars`; else its opening and the passages nearest to `goal`, in the page's order.

    The result is never longer than `max_chars`; passages that do not adjoin are parted by a line `…`.

    Args:
        ranker: puts the best passages by words into its own order, unless the goal is in a script without spaces.
    """
    if len(text) <= max_chars:
        return text
    passage_chars = max(1, min(_PASSAGE_CHARS, max_chars // 4))
    passages = _split(text, max_chars=passage_chars)
    order = _by_words(passages, goal)
    if ranker is not None and not _PAIRED.search(goal):
        num_ranked = min(max(_MIN_RANKED, 2 * max_chars // passage_chars), _MAX_RANKED)
        order = _by_meaning(passages, goal, order, num_ranked, ranker)
    chosen: list[int] = []
    room = max_chars
    for i in (0, *(i for i in order if i != 0)):
        cost = len(passages[i]) + 3  # the break before it, and the line break behind
        if cost <= room:
            chosen.append(i)
            room -= cost
    chosen.sort()
    parts: list[str] = []
    for previous, i in zip([-1, *chosen], chosen, strict=False):
        if i != previous + 1:
            parts.append("…")
        parts.append(passages[i])
    return "\n".join(parts)[:max_chars]


def _by_words(passages: Sequence[str], goal: str) -> list[int]:
    """The passages' numbers, those first that hold most of the goal's words; equal ones in the page's order."""
    wanted = set(terms(goal))
    singles = [term for term in wanted if len(term) == 1 and _PAIRED.match(term)]  # pages have them in pairs only
    held = [
        wanted.intersection(terms(passage)).union(single for single in singles if single in passage)
        for passage in passages
    ]
    weight = {term: math.log(1 + len(passages) / sum(term in words for words in held)) for term in set().union(*held)}
    scores = [sum(weight[term] for term in words) for words in held]
    return sorted(range(len(passages)), key=lambda i: (-scores[i], i))


def _by_meaning(
    passages: Sequence[str], goal: str, order: Sequence[int], num_ranked: int, ranker: PassageRanker
) -> list[int]:
    """The order with its best `num_ranked` ranked anew."""
    best = order[:num_ranked]
    scores = dict(zip(best, ranker.scores(goal, [passages[i] for i in best]), strict=True))
    return [*sorted(best, key=lambda i: (-scores[i], i)), *order[num_ranked:]]


def _split(text: str, *, max_chars: int) -> list[str]:
    """Runs of whole lines of at most `max_chars`; a longer line is cut."""
    passages: list[str] = []
    for line in text.split("\n"):
        for piece in _cut(line, max_chars) if len(line) > max_chars else (line,):
            if passages and len(passages[-1]) + 1 + len(piece) <= max_chars:
                passages[-1] += "\n" + piece
            else:
                passages.append(piece)
    return passages


def _cut(line: str, max_chars: int) -> Iterator[str]:
    """Pieces of a long line: cut after a sentence, else before a word, else anywhere, each more than half full."""
    start = 0
    while len(line) - start > max_chars:
        end = start + max_chars
        half = start + max_chars // 2
        ends = [match.end() for match in _SENTENCE_END.finditer(line, half, end)]
        space = line.rfind(" ", half, end)
        cut = ends[-1] if ends else space + 1 if space >= 0 else end
        yield line[start:cut]
        start = cut
    yield line[start:]
