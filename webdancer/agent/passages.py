"""Chooses the parts of a long page that are nearest to a goal, when the summariser cannot be shown all of it.

Passages are runs of whole lines. A passage scores by the goal's words that it holds, rare words of the page counting more;
Chinese and Japanese text is compared by pairs of characters. Pure; no index is built, since it serves one page and one goal.
"""

import math
import re

_PASSAGE_CHARS = 800
_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]+|\w+")
_HAN = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]")


def terms(text: str) -> list[str]:
    """Words in lower case; runs of Chinese or Japanese characters as their overlapping pairs."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if _HAN.match(word) and len(word) > 1:
            found += [word[i : i + 2] for i in range(len(word) - 1)]
        else:
            found.append(word)
    return found


def choose_passages(text: str, goal: str, *, max_chars: int) -> str:
    """`text` itself where it fits `max_chars`; else its opening and the passages nearest to `goal`, in the page's order.

    The result is never longer than `max_chars`; passages that do not adjoin are parted by a line `…`.
    """
    if len(text) <= max_chars:
        return text
    passages = _split(text, max_chars=max(1, min(_PASSAGE_CHARS, max_chars // 4)))
    wanted = set(terms(goal))
    held = [wanted.intersection(terms(passage)) for passage in passages]
    weight = {term: math.log(1 + len(passages) / sum(term in words for words in held)) for term in set().union(*held)}
    scores = [sum(weight[term] for term in words) for words in held]
    order = sorted(range(len(passages)), key=lambda i: (i != 0, -scores[i], i))
    chosen: list[int] = []
    room = max_chars
    for i in order:
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


def _split(text: str, *, max_chars: int) -> list[str]:
    """Runs of whole lines of at most `max_chars`; a longer line is cut."""
    pieces = [line[i : i + max_chars] for line in text.split("\n") for i in range(0, max(1, len(line)), max_chars)]
    passages: list[str] = []
    for piece in pieces:
        if passages and len(passages[-1]) + 1 + len(piece) <= max_chars:
            passages[-1] += "\n" + piece
        else:
            passages.append(piece)
    return passages
