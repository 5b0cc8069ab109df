"""Splits: disjoint, balanced, the same every time; on one site no answer chain on both sides."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from webdancer.records import QA, QAKind, QASplit
from webdancer.synth.split import mark_heldout, split_sft_rl, split_single_site


def qa(number, *, kind=QAKind.MULTI_HOP, answer=None, pages=("a", "b")):
    return QA(
        id=f"{kind}-{number}", question=f"Q{number}?", answer=answer or f"Answer {number}", kind=kind,
        evidence_urls=tuple(pages),
    )  # fmt: skip


def test_sft_and_rl_are_balanced_by_kind():
    qas = [qa(n, kind=kind) for kind in QAKind for n in range(10)]
    split = split_sft_rl(qas, sft_share=0.3, seed=1)
    assert [q.id for q in split] == [q.id for q in qas]
    assert Counter((q.kind, q.split) for q in split) == {
        (kind, part): num for kind in QAKind for part, num in ((QASplit.SFT, 3), (QASplit.RL, 7))
    }


def test_the_split_depends_on_seed_and_ids_and_not_on_the_order():
    qas = [qa(n) for n in range(50)]
    one = {q.id: q.split for q in split_sft_rl(qas, sft_share=0.5, seed=1)}
    assert {q.id: q.split for q in split_sft_rl(qas[::-1], sft_share=0.5, seed=1)} == one
    assert {q.id: q.split for q in split_sft_rl(qas, sft_share=0.5, seed=2)} != one


def test_a_second_web_is_held_out_as_a_whole():
    assert {q.split for q in mark_heldout([qa(1), qa(2)])} == {QASplit.HELDOUT}


def test_questions_that_share_a_page_or_an_answer_stay_together():
    chains = [[qa(10 * c + n, pages=(f"{c}-{n}", f"{c}-{n + 1}")) for n in range(3)] for c in range(10)]
    by_answer = [qa(n, pages=(f"x{n}", f"y{n}"), answer="Velm") for n in (200, 201)]
    split = split_single_site([*[q for chain in chains for q in chain], *by_answer], heldout_share=0.3, seed=1)
    sides = [{q.id for q in split.train}, {q.id for q in split.heldout}]
    assert all(any({q.id for q in chain} <= side for side in sides) for chain in [*chains, by_answer])
    assert split.hubs == []
    assert 8 <= len(split.heldout) <= 10
    assert all(q.split is QASplit.HELDOUT for q in split.heldout)


def test_a_number_does_not_connect():
    qas = [qa(n, kind=QAKind.COUNT, answer="7", pages=(f"x{n}", f"y{n}")) for n in range(10)]
    split = split_single_site(qas, heldout_share=0.5, seed=1)
    assert len(split.heldout) == 5
    assert split.hubs == []


def test_a_page_that_connects_all_is_a_hub_and_is_listed():
    qas = [qa(n, pages=("main", f"x{n}")) for n in range(10)]
    split = split_single_site(qas, heldout_share=0.3, seed=1)
    assert (len(split.train), len(split.heldout)) == (7, 3)
    assert split.hubs == ["main"]


@given(
    st.lists(st.tuples(st.sampled_from("ABCDEFGH7"), st.sets(st.integers(0, 12), min_size=2, max_size=4)), max_size=30),
    st.integers(0, 5),
)
def test_no_chain_is_on_both_sides(items, seed):
    qas = [qa(n, answer=answer, pages=[str(page) for page in sorted(pages)]) for n, (answer, pages) in enumerate(items)]
    split = split_single_site(qas, heldout_share=0.3, seed=seed)
    assert sorted(q.id for q in (*split.train, *split.heldout)) == sorted(q.id for q in qas)
    train = {url for q in split.train for url in q.evidence_urls} - set(split.hubs)
    heldout = {url for q in split.heldout for url in q.evidence_urls} - set(split.hubs)
    assert not train & heldout
    answers = [{q.answer for q in side} - {"7"} for side in (split.train, split.heldout)]
    assert not answers[0] & answers[1]
