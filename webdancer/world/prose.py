"""Running text: sentences from the lexicon's shapes, with pronouns, articles and links; each records the fact that it states."""

import html
import random
import re
from collections.abc import Callable

from webdancer.world.filler import FILLER
from webdancer.world.graph import MONTHS, Entity, Fact
from webdancer.world.lexicon import ALIASES, COMBINED, CONTORTED, RELATIONS, TYPE_NOUNS, Combined, ObjectKind
from webdancer.world.names import takes_article
from webdancer.world.site import Doc, Site

_CONTORTED_SHARE = 0.09
_NEEDS_NAME = re.compile(
    r"^~|^\{s\}, |(city of|band|repository|called|name|birth of|found|advised|had|marriage of|spouse of) \{s_mid\}|\{s_mid\},"
)
"""Shapes in which no pronoun and no `the film` can stand for the subject."""
_LONG_DATE = re.compile(r"(\d{1,2}) ([A-Z][a-z]+) (\d{4})")


class _Slots(dict[str, str]):
    """Fills a shape; every slot is worked out when it is met."""

    def __init__(self, fill: Callable[[str], str]) -> None:
        super().__init__()
        self._fill = fill

    def __missing__(self, name: str) -> str:
        return self._fill(name)


class Prose:
    """Writes sentences about one subject on one page.

    Args:
        always_named: the subject is named in full in each sentence, as in the news.
    """

    def __init__(
        self, site: Site, doc: Doc, subject: Entity, rng: random.Random, *, always_named: bool = False
    ) -> None:
        self.site, self.doc, self.subject, self.rng = site, doc, subject, rng
        self._always_named = always_named
        self._named = False

    def sentence(self, fact: Fact, shapes: tuple[str, ...] = ()) -> str:
        """State one fact, as HTML."""
        shapes = shapes or RELATIONS[fact.relation].shapes
        plain = [shape for shape in shapes if not shape.startswith(CONTORTED)]
        contorted = [shape for shape in shapes if shape.startswith(CONTORTED)]
        use_contorted = bool(contorted) and self._named and self.rng.random() < _CONTORTED_SHARE
        shape = self.rng.choice(contorted if use_contorted else plain)
        self.doc.state(fact)
        text = self._tense(shape, fact.relation == "occupation")
        return self._render(text, {"o": fact, "o_start": fact, "o_a": fact}, fact.year)

    def combined(self, shape: Combined) -> str:
        """State several facts of the subject in one sentence."""
        facts: dict[str, Fact] = {}
        for relation in shape.relations:
            fact = self.subject.one(relation)
            assert fact is not None
            self.doc.state(fact)
            facts[relation] = facts[f"{relation}_a"] = fact
        return self._render(self._tense(shape.text, "occupation" in shape.relations), facts, None)

    def usable_combined(self) -> list[Combined]:
        """The combined shapes of which the subject has every fact."""
        dead = self.subject.one("death_date") is not None
        return [
            shape
            for shape in COMBINED
            if all(self.subject.type in RELATIONS[r].subjects and self.subject.one(r) for r in shape.relations)
            and not (
                dead
                and "birth_date" in shape.relations
                and "occupation" in shape.relations
                and "death_date" not in shape.relations
            )
        ]

    def alias(self, alias: str) -> str:
        """State another name of the subject."""
        shape = self.rng.choice(ALIASES[self.subject.type])
        return shape.format_map(
            _Slots(lambda slot: html.escape(alias, quote=False) if slot == "o" else self._subject(slot, "name"))
        )

    def filler(self, kind: str, count: int) -> list[str]:
        """Sentences that state nothing."""
        pool = FILLER[kind]
        return self.rng.sample(pool, min(count, len(pool)))

    def _tense(self, shape: str, changes: bool) -> str:
        if changes and self.subject.one("death_date") is not None:
            return shape.replace(" is ", " was ")
        return shape

    def _render(self, shape: str, facts: dict[str, Fact], year: int | None) -> str:
        mode = self._mode(shape)

        def fill(slot: str) -> str:
            if slot == "y":
                return str(year)
            if slot in facts:
                return self.mention(facts[slot], start=slot == "o_start", article=slot.endswith("_a"))
            return self._subject(slot, mode)

        text = shape.removeprefix(CONTORTED).format_map(_Slots(fill))
        self._named = True
        return text

    def _mode(self, shape: str) -> str:
        if self._always_named or not self._named or _NEEDS_NAME.search(shape):
            return "name"
        chance = self.rng.random()
        if self.subject.type == "person":
            return "pronoun" if chance < 0.8 else "name"
        return "noun" if chance < 0.45 else "pronoun" if chance < 0.75 else "name"

    def _subject(self, slot: str, mode: str) -> str:
        """The subject in slot `s`, `s_mid`, `s_poss` or `s_poss_mid`."""
        possessive, start = "poss" in slot, not slot.endswith("mid")
        subject = self.subject
        if mode == "pronoun":
            forms = ("it", "its") if subject.type != "person" else ("she", "her") if subject.female else ("he", "his")
            text = forms[possessive]
        else:
            text = f"the {TYPE_NOUNS[subject.type]}" if mode == "noun" else self.full_name(subject)
            text += "'s" if possessive else ""
        return text[0].upper() + text[1:] if start and mode != "name" else _capital(text) if start else text

    def full_name(self, entity: Entity) -> str:
        """The name with its article, as HTML; a link where the page is about something else."""
        name = html.escape(entity.name, quote=False)
        if self._always_named:
            return self._linked(entity, name)
        if entity.type == "paper":
            return f"“{name}”"
        return f"the {name}" if takes_article(entity.type, entity.name) else name

    def _linked(self, entity: Entity, text: str) -> str:
        anchor = self.site.link(self.doc, entity, html.unescape(text))
        if entity.type == "paper":
            return f"“{anchor}”"
        if entity.type == "person" and entity.title != entity.name:
            return f"the {entity.role} {anchor}"
        return f"the {anchor}" if takes_article(entity.type, entity.name) else anchor

    def mention(self, fact: Fact, *, start: bool = False, article: bool = False) -> str:
        """The object of a fact in running text."""
        if fact.object is not None:
            text = self._linked(fact.object, html.escape(fact.object.name, quote=False))
        else:
            text = show_value(fact)
            long_date = _LONG_DATE.fullmatch(text)
            if long_date and self.rng.random() < 0.5 and long_date[2] in MONTHS:
                text = f"{long_date[2]} {long_date[1]}, {long_date[3]}"
            if article:
                text = ("an " if text[0] in "aeiou" else "a ") + text
        return _capital(text) if start else text


def show_value(fact: Fact) -> str:
    """A value as it is printed: numbers with separators."""
    if RELATIONS[fact.relation].kind is ObjectKind.NUMBER:
        return f"{int(fact.value):,}"
    return html.escape(fact.value, quote=False)


def _capital(text: str) -> str:
    """Capitalise an article at the start of a sentence; names stay as they are (repositories open with small letters)."""
    return "T" + text[1:] if text.startswith("the ") else text
