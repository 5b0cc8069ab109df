"""The English of the talk host: how a post claims a fact. Pure data.

Not from the paper. A post is one sentence, `I think the birthplace of Ana Velk is Ornburg.`: hedged, and often
wrong. The names in it stand without article, quotation marks and hint in brackets; values stand as in an infobox, numbers
without their unit.
"""

TITLE = "{title}: what do you know?"
"""Of a thread, about the thing of that title."""

HEDGES = ("I think", "As far as I know,", "Somebody told me that", "If I remember rightly,")

CLAIM = "{hedge} the {noun} of {name} is {value}."

NOUNS: dict[str, str] = {
    "born_in": "birthplace", "studied_at": "alma mater", "advisor": "doctoral advisor", "spouse": "spouse",
    "employer": "employer", "birth_date": "date of birth", "death_date": "date of death", "occupation": "occupation",
    "in_country": "country", "on_river": "river", "partner_city": "partner city", "city_founded": "founding year",
    "capital": "capital", "currency": "currency", "language": "language",
    "flows_into": "mouth", "river_length": "length",
    "lake_country": "country", "lake_area": "area", "lake_depth": "depth",
    "univ_city": "home city", "univ_founder": "founder", "univ_founded": "founding year",
    "museum_city": "home city", "museum_architect": "architect", "museum_opened": "opening year",
    "crosses": "crossed river", "bridge_architect": "architect", "bridge_city": "home city",
    "bridge_opened": "opening year", "bridge_length": "span",
    "director": "director", "based_on": "source novel", "filmed_in": "filming place", "film_year": "release year",
    "runtime": "running time",
    "author": "author", "publisher": "publisher", "set_in": "setting", "novel_year": "publication year",
    "performer": "band", "recorded_in": "recording place", "label": "record label", "producer": "producer",
    "album_year": "release year",
    "formed_in": "home town", "formed_year": "formation year",
    "headquarters": "head office", "company_founder": "founder", "acquired_by": "parent company",
    "company_founded": "founding year",
    "named_after": "namesake", "awarded_by": "awarding body", "first_awarded": "first award year",
    "code": "repository", "funded_by": "funder", "submitted": "submission date", "field": "research field",
    "num_samples": "sample size",
    "maintainer": "maintainer", "implements": "paper", "programming_language": "programming language",
    "licence": "licence", "first_release": "first release date",
}  # fmt: skip
"""Relation → the noun that stands for it in claims. Relations that change over the years and lists have none. Two relations
share a noun only where no thing can have both and they mean the same."""

NICKNAMES = (
    "marlo", "quill", "tansy", "oldmap", "fennel", "pocketwatch", "juniper", "stray", "larkspur", "inkwell", "pebble", "nightbus",
)  # fmt: skip
