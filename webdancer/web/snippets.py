"""The part of a page that a search result shows."""

import re
import unicodedata

_MAX_CHARS = 200
_MAX_POSITIONS = 30
"""Occurrences of one term that are looked at."""
_MARKS = re.compile(r"(?:^|\n)\s*(?:#{1,6}|-) ")


def make_snippet(text: str, weights: dict[str, float]) -> str:
    """The window of a text that holds the most telling terms, as one line of at most 200 characters."""
    positions = _positions(_folded(text), weights)
    start, end = _best_window(positions, weights, len(text))
    return _cut(text, start, end)


def _folded(text: str) -> str:
    """Lowercased, without accents, character by character, so that positions stay."""
    lowered = text.lower()
    if lowered.isascii():
        return lowered
    if len(lowered) != len(text):  # a dotted capital I becomes two characters
        lowered = "".join(char.lower()[0] for char in text)
    return lowered.translate(_ACCENTS)


def _accents() -> dict[int, str]:
    table = {}
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        base = unicodedata.normalize("NFD", chr(code))[0]
        if base.isascii():
            table[code] = base.lower()
    return table


_ACCENTS = _accents()


def _positions(folded: str, weights: dict[str, float]) -> list[tuple[int, int, str]]:
    """Where the terms stand: (start, end, term), in order."""
    found = []
    for term in weights:
        needle = _folded(term)
        position = folded.find(needle)
        count = 0
        while position >= 0 and count < _MAX_POSITIONS:
            end = position + len(needle)
            if _is_word(folded, position, end):
                found.append((position, end, term))
                count += 1
            position = folded.find(needle, end)
    found.sort()
    return found


def _is_word(text: str, start: int, end: int) -> bool:
    """Does a word begin and end here? CJK characters need no border."""
    if not text[start].isascii():
        return True
    before = start > 0 and text[start - 1].isascii() and text[start - 1].isalnum()
    after = end < len(text) and text[end].isascii() and text[end].isalnum()
    return not before and not after


def _best_window(positions: list[tuple[int, int, str]], weights: dict[str, float], length: int) -> tuple[int, int]:
    """The stretch of at most 200 characters whose different terms weigh most; the first of equals."""
    best, best_weight = (0, 0), 0.0
    for index, (start, end, _) in enumerate(positions):
        seen: set[str] = set()
        last = end
        for _, other_end, term in positions[index:]:
            if other_end - start > _MAX_CHARS - 40:
                break
            seen.add(term)
            last = other_end
        weight = sum(weights[term] for term in seen)
        if weight > best_weight * 1.000001:
            best, best_weight = (start, last), weight
    slack = max(0, _MAX_CHARS - (best[1] - best[0]))
    begin = max(0, best[0] - slack // 3)
    return begin, min(length, begin + _MAX_CHARS)


def _cut(text: str, start: int, end: int) -> str:
    """A window as one line, cut at spaces, with an ellipsis where text was left out."""
    if start > 0:
        space = text.find(" ", start, start + 20)
        newline = text.find("\n", start, start + 20)
        cuts = [cut for cut in (space, newline) if cut >= 0]
        start = min(cuts) if cuts else start
    if end < len(text):
        space = max(text.rfind(" ", end - 20, end), text.rfind("\n", end - 20, end))
        end = space if space > start else end
    line = " ".join(_MARKS.sub("\n", text[start:end]).split())
    return ("… " if start > 0 else "") + line + (" …" if end < len(text) else "")
