"""What people say in threads: claims, which are no facts.

A post of a thread is one hedged sentence, "I think the founder of X is Y." The reader takes nothing from it. Here it is read
for the hasty teacher, who takes a post's word at some steps and leaves the page unread, so that what it teaches is a mixture
of care and haste. The paper's teachers differ in thoroughness by themselves.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from webdancer.scribe.knowledge import may_be_same
from webdancer.scribe.logical import Lookup, Name
from webdancer.scribe.mentions import NUMBER, base_name, find_date, split_sentences
from webdancer.scribe.observations import Hit
from webdancer.scribe.reader import Fact
from webdancer.scribe.relations import RELATIONS

HEDGES = ("I think", "As far as I know,", "Somebody told me that", "If I remember rightly,")
THREAD = ": what do you know?"
"""How the title of a thread ends, behind the title of what it is about."""

# relation: noun, as posts write it
_NOUNS = """\
born_in: birthplace
birth_date: date of birth
death_date: date of death
studied_at: alma mater
advisor: doctoral advisor
spouse: spouse
employer: employer
occupation: occupation
country: country
on_river: river
founded: founding year
founder: founder
partner_city: partner city
capital: capital
currency: currency
language: language
river_length: length
flows_into: mouth
lake_area: area
lake_depth: depth
located_in: home city
headquarters: head office
acquired_by: parent company
director: director
released: release year
based_on: source novel
filmed_in: filming place
runtime: running time
author: author
published: publication year
set_in: setting
publisher: publisher
performer: band
recorded_in: recording place
label: record label
producer: producer
formed_in: home town
formed_year: formation year
opened: opening year
architect: architect
crosses: crossed river
bridge_length: span
named_after: namesake
awarded_by: awarding body
first_awarded: first award year
submitted: submission date
field: research field
code: repository
funded_by: funder
num_samples: sample size
maintainer: maintainer
programming_language: programming language
licence: licence
first_release: first release date
implements: paper
"""
NOUNS: dict[str, str] = dict(line.split(": ") for line in _NOUNS.splitlines())
"""Relation → its noun in posts."""
_RELATION_OF = {noun: relation for relation, noun in NOUNS.items()}

_HEDGE = "|".join(map(re.escape, HEDGES))
_START = re.compile(rf"(?=(?:{_HEDGE}) the )")
_CLAIM = re.compile(
    rf"(?:{_HEDGE}) the ({'|'.join(sorted(map(re.escape, _RELATION_OF), key=len, reverse=True))}) of (.+?) is (.+)\."
)


class Claim(NamedTuple):
    """What a post says."""

    relation: str
    of: Name
    """With the describing word that the thread's title gives."""
    value: Name
    """A thing, or a literal in its canonical spelling."""
    sentence: str
    """The claim without its hedge: "the founder of X is Y"."""
    url: str

    def as_fact(self) -> Fact:
        """The claim taken at its word."""
        return Fact(self.of, self.relation, self.value, self.sentence)


def read_claims(hit: Hit) -> list[Claim]:
    """The claims that a search result's snippet holds whole, in their order."""
    about = base_name(hit.title.removesuffix(THREAD))
    claims = []
    for piece in _START.split(hit.snippet)[1:]:
        match = _CLAIM.fullmatch(split_sentences(piece.strip())[0])
        value = _read_value(_RELATION_OF[match[1]], match[3]) if match else None
        if match and value is not None:
            of = about if about.text == match[2] else Name(match[2])
            sentence = f"the {match[1]} of {match[2]} is {match[3]}"
            claims.append(Claim(_RELATION_OF[match[1]], of, value, sentence, hit.url))
    return claims


def _read_value(relation: str, text: str) -> Name | None:
    """The value in its canonical spelling; None if it cannot be one of that relation."""
    kinds = RELATIONS[relation].range
    if "date" in kinds:
        date = find_date(text)
        return Name(date) if date else None
    if kinds & {"year", "number"}:
        return Name(text.replace(",", "")) if re.fullmatch(NUMBER, text) else None
    return Name(text)


def find_claim(hits: Iterable[Hit], step: Lookup) -> Claim | None:
    """The first claim about exactly this relation of exactly this name."""
    of = step.of
    assert isinstance(of, Name)
    for hit in hits:
        if of.text not in hit.snippet:
            continue
        for claim in read_claims(hit):
            if claim.relation == step.relation and may_be_same(of, claim.of):
                return claim
    return None


def is_thread(hit: Hit) -> bool:
    """Whether a search result is a thread, as its title tells."""
    return hit.title.endswith(THREAD)
