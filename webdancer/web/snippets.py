"""The part of a page that a search result shows."""

import re
import unicodedata

_MAX_CHARS = 200
_WINDOW_CHARS = 160
"""The words of a window stand within so many; the rest is what is around them."""
_MAX_POSITIONS = 20
"""Occurrences of one word that are looked at."""
_MARKS = re.compile(r"(?:^|\n)\s*(?:#{1,6}|-) ")


class SnippetMaker:
    """Cuts snippets for one query.

    Args:
        weights: what to look for, lowercased → how telling it is.
    """

    def __init__(self, weights: dict[str, float]) -> None:
        self._needles = [(_folded(needle), weight, needle[0].isascii()) for needle, weight in weights.items()]

    def cut(self, text: str) -> str:
        """The window of a text that holds the most telling words, as one line of about 200 characters."""
        start, end = self._best_window(self._positions(_folded(text)))
        slack = max(0, _MAX_CHARS - (end - start))
        begin = max(0, start - slack // 3)
        return _cut(text, begin, min(len(text), begin + _MAX_CHARS))

    def _positions(self, text: str) -> list[tuple[int, int, int]]:
        """Where the words stand: (start, end, number of the word), in order. CJK characters need no border."""
        found = []
        for number, (needle, _, needs_border) in enumerate(self._needles):
            position = text.find(needle)
            count = 0
            while position >= 0 and count < _MAX_POSITIONS:
                end = position + len(needle)
                if not needs_border or not (text[position - 1 : position].isalnum() or text[end : end + 1].isalnum()):
                    found.append((position, end, number))
                    count += 1
                position = text.find(needle, end)
        found.sort()
        return found

    def _best_window(self, positions: list[tuple[int, int, int]]) -> tuple[int, int]:
        """The stretch whose different words weigh most; the first of equals.

        A window slides over the occurrences: `counts` says how often each word stands in it. It never opens with a word
        that comes again later in it, so that it is as short as can be and what is around it gets more room.
        """
        best, best_weight = (0, 0), 0.0
        counts = [0] * len(self._needles)
        weight, left = 0.0, 0
        for index, (_, end, number) in enumerate(positions):
            counts[number] += 1
            if counts[number] == 1:
                weight += self._needles[number][1]
            while left < index and (end - positions[left][0] > _WINDOW_CHARS or counts[positions[left][2]] > 1):
                gone = positions[left][2]
                counts[gone] -= 1
                if counts[gone] == 0:
                    weight -= self._needles[gone][1]
                left += 1
            if weight > best_weight * 1.000001:
                best, best_weight = (positions[left][0], end), weight
        return best


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
