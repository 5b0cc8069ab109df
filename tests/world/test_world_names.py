"""Names are unique, found again from their text, and other in every seed."""

import pytest

from webdancer.world import words
from webdancer.world.names import Names, ascii_slug, takes_article

KINDS = [*words.ENDINGS, "paper"]


def test_endings_of_all_types_are_disjoint_and_open_with_a_consonant() -> None:
    endings = [ending for group in words.ENDINGS.values() for ending in group]
    assert len(endings) == len(set(endings))
    assert not [ending for ending in endings if ending[0] in "aeiou"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_unique_and_disjoint_between_seeds(kind: str) -> None:
    one, other = ({Names(seed).name(kind, number) for number in range(300)} for seed in (7, 8))
    assert len(one) == len(other) == 300
    assert len(one & other) <= 3


@pytest.mark.parametrize("kind", words.ENDINGS)
def test_a_name_leads_back_to_its_number(kind: str) -> None:
    names = Names(11)
    for number in (0, 1, 77, 5000, names.capacity(kind) - 1):
        assert (kind, number) in names.candidates(names.name(kind, number))


def test_a_number_beyond_the_capacity_is_refused() -> None:
    names = Names(7)
    with pytest.raises(ValueError, match="outside"):
        names.name("band", names.capacity("band"))


def test_articles_and_slugs() -> None:
    assert takes_article("river", "River Orn")
    assert takes_article("university", "University of Velby")
    assert not takes_article("university", "Velby University")
    assert not takes_article("film", "Silent Harbour")
    assert ascii_slug("Zélie Brølör-Sén") == "zelie-brolor-sen"
