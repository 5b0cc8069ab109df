"""States a fact in one plain sentence, of the kind that the reader reads back."""

import re

from webdancer.scribe.logical import Name
from webdancer.scribe.question import write_name
from webdancer.scribe.reader_sentences import SENTENCES
from webdancer.scribe.relations import RELATIONS

_BY_HAND = {
    "country": "S lies in [country].",
    "located_in": "S is located in [located_in].",
    "spouse": "S is married to [spouse].",
    "studied_at": "S studied at [studied_at].",
    "occupation": "The occupation of S is [occupation].",
    "advisor": "The doctoral advisor of S was [advisor].",
    "partner_city": "The partner city of S is [partner_city].",
    "population": "The population of S was [population] in {year}.",
    "mayor": "The mayor of S has been [mayor] since {year}.",
    "ceo": "The chief executive of S has been [ceo] since {year}.",
    "employees": "S had [employees] employees in {year}.",
    "stars": "S had [stars] stars in {year}.",
    "acquired_by": "S was acquired by [acquired_by].",
    "funded_by": "S was funded by [funded_by].",
    "num_samples": "S uses [num_samples] samples.",
}


def _statements() -> dict[str, str]:
    """The first plain sentence of the reader's that states nothing but the one relation of its subject."""
    found = dict(_BY_HAND)
    for line in SENTENCES.splitlines():
        slots = re.findall(r"\[(\w+)\]", line)
        rest = re.sub(r"\[\w+\]", "", line)
        if len(slots) == 1 and rest.startswith("S ") and not re.search(r"\b(?:IS|WORKS|AN)\b|_|[{|]", rest):
            found.setdefault(slots[0], line)
    return found


_STATEMENTS = _statements()


def state(relation: str, subject: Name, value: Name, year: int | None = None) -> str:
    """The fact as a sentence with full names."""
    shown = write_name(value) if RELATIONS[relation].is_entity else value.text
    sentence = _STATEMENTS[relation]
    if year is None:
        sentence = re.sub(r" (?:in|since) \{year\}", "", sentence)
    parts = {"S": write_name(subject), f"[{relation}]": shown, "{year}": str(year)}
    sentence = re.sub(r"\bS\b|\[\w+\]|\{year\}", lambda match: parts[match[0]], sentence)
    # Names stay as they are: those of repositories open with a small letter.
    return "T" + sentence[1:] if sentence.startswith("the ") else sentence
