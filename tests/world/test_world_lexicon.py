"""The lexicon is complete and its shapes are well formed."""

import re
import string

import pytest

from webdancer.world import lexicon
from webdancer.world.filler import FILLER

SLOTS = {"s", "s_mid", "s_poss", "s_poss_mid", "o", "o_start", "o_a", "y"}


def slots(shape: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(shape) if name}


def test_there_are_75_relations_of_which_5_change_over_time() -> None:
    assert len(lexicon.RELATIONS) == 75
    changing = {r.id for r in lexicon.RELATIONS.values() if r.cardinality is lexicon.Cardinality.VOLATILE}
    assert changing == {"population", "mayor", "ceo", "employees", "stars"}
    assert set(lexicon.NEWS) == changing | {"laureates", "acquired_by"}


@pytest.mark.parametrize("relation", lexicon.RELATIONS.values(), ids=lambda r: r.id)
def test_a_relation_has_five_plain_shapes_two_labels_and_known_slots(relation: lexicon.Relation) -> None:
    plain = [shape for shape in relation.shapes if not shape.startswith(lexicon.CONTORTED)]
    assert len(set(plain)) >= 5
    assert len(set(relation.labels)) == 2
    for shape in relation.shapes:
        used = slots(shape)
        assert used <= SLOTS
        assert used & {"o", "o_start", "o_a"}, shape
        assert shape.endswith(".")
        if relation.id not in {"code", "funded_by", "num_samples"}:
            assert used & {"s", "s_mid", "s_poss", "s_poss_mid"}, shape
        if relation.cardinality is lexicon.Cardinality.VOLATILE or relation.id in {"laureates", "acquired_by"}:
            assert "y" in used, shape


def test_about_one_shape_in_six_is_contorted() -> None:
    shapes = [shape for relation in lexicon.RELATIONS.values() for shape in relation.shapes]
    assert sum(shape.startswith(lexicon.CONTORTED) for shape in shapes) * 6 == len(shapes)


def test_combined_shapes_name_relations_of_one_subject_type() -> None:
    for shape in lexicon.COMBINED:
        named = {slot.removesuffix("_a") for slot in slots(shape.text)} - {"s", "s_mid"}
        assert named == set(shape.relations)
        assert set.intersection(*(set(lexicon.RELATIONS[r].subjects) for r in shape.relations))


def test_list_headings_are_not_shared_by_two_kinds_of_one_holder() -> None:
    seen: set[tuple[str, str]] = set()
    for kind in lexicon.LISTS.values():
        assert len(kind.headings) >= 2
        for holder in kind.holders:
            for heading in kind.headings:
                assert (holder, heading) not in seen
                seen.add((holder, heading))


def test_fillers_hold_no_name_and_no_number() -> None:
    for sentences in FILLER.values():
        for sentence in sentences:
            rest = sentence.split(" ", 1)[1].replace("August", "")
            assert not re.search(r"[A-Z0-9]", rest), sentence
