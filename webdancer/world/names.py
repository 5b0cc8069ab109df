"""Names of the embedded web: a bijection from (type, index) to a name, other for every seed, and back again.

Every name holds one invented word, `onset vowel middle vowel ending`. The endings of the types are disjoint, so a word tells its
type and its index; that is how a URL of a web of a million pages is answered without a table of all titles.

    index → (factor · index + shift) mod size → digits → syllables        factor and shift come from the seed
"""

import math
import random
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from webdancer.world import words

_SYLLABLES = re.compile(r"([^aeiou]+)([aeiou])([^aeiou]+)([aeiou])(.+)")
_TOKEN = re.compile(r"[^\W\d_]+")
_STEMS = len(words.ONSETS) * len(words.VOWELS) * len(words.MIDDLES) * len(words.VOWELS)

ARTICLE_TYPES = frozenset({"river", "museum", "bridge", "prize"})
"""Types whose names take `the` in prose; universities do where the name does not end in `University`."""


class Candidate(NamedTuple):
    """What a word may stand for."""

    type: str
    number: int


class Names:
    """All names of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._onsets = {part: i for i, part in enumerate(words.ONSETS)}
        self._vowels = {part: i for i, part in enumerate(words.VOWELS)}
        self._middles = {part: i for i, part in enumerate(words.MIDDLES)}
        self._endings = {end: (kind, i) for kind, ends in words.ENDINGS.items() for i, end in enumerate(ends)}
        self._keys: dict[str, tuple[int, int, int]] = {}
        for kind in (*words.ENDINGS, "paper"):
            rng = random.Random(f"names/{seed}/{kind}")
            size = self.capacity(kind)
            factor = rng.randrange(size // 3, size)
            while math.gcd(factor, size) != 1:
                factor += 1
            self._keys[kind] = (size, factor, rng.randrange(size))
        self.name = lru_cache(maxsize=20_000)(self._name)

    @staticmethod
    def capacity(kind: str) -> int:
        """How many different names the type has."""
        if kind == "paper":
            return 3 * math.prod(
                map(len, (words.PAPER_ADJECTIVES, words.PAPER_METHODS, words.PAPER_QUALITIES, words.PAPER_OBJECTS))
            )
        stems = _STEMS * len(words.ENDINGS[kind])
        return stems * len(words.GIVEN) if kind == "person" else stems

    def _number(self, kind: str, index: int) -> int:
        size, factor, shift = self._keys[kind]
        if not 0 <= index < size:
            raise ValueError(f"{kind} {index}: got an index outside the {size} names of the type")
        return (factor * index + shift) % size

    def is_female(self, index: int) -> bool:
        """Whether the given name of person `index` is a woman's."""
        return self._number("person", index) % len(words.GIVEN) < words.NUM_FEMALE

    def word(self, kind: str, index: int) -> str:
        """The invented word of a name, capitalised."""
        number = self._number(kind, index)
        if kind == "person":
            number //= len(words.GIVEN)
        number, ending = divmod(number, len(words.ENDINGS[kind]))
        number, onset = divmod(number, len(words.ONSETS))
        number, vowel = divmod(number, len(words.VOWELS))
        number, middle = divmod(number, len(words.MIDDLES))
        syllables = words.ONSETS[onset], words.VOWELS[vowel], words.MIDDLES[middle], words.VOWELS[number]
        return ("".join(syllables) + words.ENDINGS[kind][ending]).capitalize()

    def _name(self, kind: str, index: int, role: str = "") -> str:
        if kind == "paper":
            return self._paper(index)
        word = self.word(kind, index)
        if kind == "person":
            return f"{words.GIVEN[self._number(kind, index) % len(words.GIVEN)]} {word}"
        rng = random.Random(f"{self.seed}/{kind}/{index}")
        if kind == "repository":
            return f"{word.lower()}-{rng.choice(words.REPOSITORY_NOUNS)}"
        patterns = words.PATTERNS[role or kind]
        pattern = patterns[rng.randrange(len(patterns))]
        adjective, noun = rng.choice(words.ADJECTIVES), rng.choice(words.NOUNS.get(kind, ("",)))
        return pattern.format(word=word, adjective=adjective, noun=noun)

    def _paper(self, index: int) -> str:
        number, adjective = divmod(self._number("paper", index), len(words.PAPER_ADJECTIVES))
        number, method = divmod(number, len(words.PAPER_METHODS))
        number, quality = divmod(number, len(words.PAPER_QUALITIES))
        joint, thing = divmod(number, len(words.PAPER_OBJECTS))
        left = f"{words.PAPER_ADJECTIVES[adjective]} {words.PAPER_METHODS[method]}"
        return (
            f"{left} {('for', 'under', 'beyond')[joint]} {words.PAPER_QUALITIES[quality]} {words.PAPER_OBJECTS[thing]}"
        )

    def candidates(self, text: str) -> list[Candidate]:
        """What the invented words in `text` may stand for. The caller checks the name in full."""
        found = []
        tokens = _TOKEN.findall(text)
        for place, token in enumerate(tokens):
            parts = _SYLLABLES.fullmatch(token.lower())
            if parts is None or parts[5] not in self._endings:
                continue
            kind, ending = self._endings[parts[5]]
            digits = (
                self._onsets.get(parts[1]),
                self._vowels.get(parts[2]),
                self._middles.get(parts[3]),
                self._vowels.get(parts[4]),
            )
            onset, vowel, middle, last = digits
            if onset is None or vowel is None or middle is None or last is None:
                continue
            number = ((last * len(words.MIDDLES) + middle) * len(words.VOWELS) + vowel) * len(words.ONSETS) + onset
            number = number * len(words.ENDINGS[kind]) + ending
            if kind == "person":
                given = tokens[place - 1] if place else ""
                if given not in words.GIVEN:
                    continue
                number = number * len(words.GIVEN) + words.GIVEN.index(given)
            size, factor, shift = self._keys[kind]
            found.append(Candidate(kind, (number - shift) * pow(factor, -1, size) % size))
        return found


def takes_article(kind: str, name: str) -> bool:
    """Whether `the` stands before the name in prose."""
    return kind in ARTICLE_TYPES or (kind == "university" and not name.endswith("University"))


def ascii_slug(text: str) -> str:
    """Lower-case ASCII letters and digits joined by `-`, for addresses."""
    plain = unicodedata.normalize("NFKD", text.replace("ø", "o")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
