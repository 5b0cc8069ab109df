"""The tables of drafts: what they propose, when they do not, and what they forget."""

import numpy as np

from webdancer.train.drafts import WINDOW, Drafter, Drafts, salt_of

STOP = 99


def drafter(max_draft: int = 6) -> Drafter:
    return Drafter(vocab_size=100, stop_ids=[STOP], max_draft=max_draft)


def write(tables: Drafter, session: str, ids: list[int]) -> None:
    """Sample `ids`, one step for each token behind the first four."""
    for end in range(WINDOW, len(ids)):
        salts = np.array([salt_of(session)], dtype=np.uint64)
        window = np.array([ids[end - WINDOW : end]])
        tables.learn([session], salts, window, np.array([ids[end]]), np.array([1]))


def propose(tables: Drafter, *rows: tuple[str, list[int]], most: int = 100) -> Drafts:
    salts = np.array([salt_of(session) for session, _ in rows], dtype=np.uint64)
    windows = np.array([ids[-WINDOW:] for _, ids in rows])
    return tables.propose(salts, windows, np.full(len(rows), most))


def of_row(drafts: Drafts, row: int) -> list[int]:
    ids: list[int] = drafts.ids[row, : drafts.counts[row]].tolist()
    return ids


LOOP = [10, 11, 12, 13, 14, 15, 16]
"""Written again and again, it can be foretold."""


def test_what_was_written_often_is_proposed() -> None:
    tables = drafter()
    write(tables, "a", LOOP * 6)
    drafts = propose(tables, ("a", [10, 11, 12, 13]), ("a", [13, 14, 15, 16]))
    assert [of_row(drafts, row) for row in range(2)] == [[14, 15, 16, 10, 11, 12], [10, 11, 12, 13, 14, 15]]


def test_phrases_serve_all_episodes_but_what_one_has_read_only_itself() -> None:
    tables = drafter()
    write(tables, "a", LOOP * 6)  # so that entries are trusted
    assert of_row(propose(tables, ("b", [10, 11, 12, 13])), 0)[:3] == [14, 15, 16]
    name = [50, 51, 52, 53, 54, 55]
    tables.read("a", [1, 2, 3, 4, *name, 1, 2, 3, 4, *name])
    drafts = propose(tables, ("a", [7, 50, 51, 52]), ("b", [7, 50, 51, 52]))
    assert of_row(drafts, 0)[:3] == [53, 54, 55]
    assert of_row(drafts, 1) == []


def test_text_without_repetition_gets_no_drafts() -> None:
    tables = drafter()
    rng = np.random.default_rng(0)
    text = rng.integers(0, 90, 600).tolist()
    write(tables, "a", text)
    counts = propose(tables, *(("a", text[at : at + WINDOW]) for at in range(0, 500))).counts
    assert counts.sum() < 50  # a tenth of a draft a row, though every one of these contexts has been seen


def test_trust_is_lost_when_drafts_fail_and_comes_back() -> None:
    tables = drafter()
    write(tables, "a", LOOP * 6)
    context = [10, 11, 12, 13]
    assert propose(tables, ("a", context)).counts[0] > 0
    names = np.random.default_rng(0).permutation(np.arange(20, 90)).tolist()  # each once: what is behind it is not right either
    write(tables, "a", [id_ for name in names for id_ in (*context, name)])
    assert propose(tables, ("a", context)).counts[0] == 0
    write(tables, "a", LOOP * 60)
    assert propose(tables, ("a", context)).counts[0] > 0


def test_a_draft_ends_before_a_stop_id_and_at_what_is_wanted() -> None:
    tables = drafter()
    write(tables, "a", [10, 11, 12, 13, 14, 15, STOP] * 6)
    assert of_row(propose(tables, ("a", [10, 11, 12, 13])), 0) == [14, 15]
    assert of_row(propose(tables, ("a", [10, 11, 12, 13]), most=1), 0) == [14]
    assert of_row(propose(tables, ("a", [10, 11, 12, 13]), most=0), 0) == []
    assert propose(drafter(0), ("a", [10, 11, 12, 13])).ids.shape == (1, 0)


def test_what_is_new_of_an_episode_is_read_once() -> None:
    """The second call brings 4 tokens more: only what follows on is entered, and the same again changes nothing."""
    tables = drafter()
    text = [1, 2, 3, 4, 5, 6]
    tables.read("a", text)
    tables.read("a", [*text, 7, 8, 9, 5])
    before = tables._repeats.copy()
    tables.read("a", [*text, 7, 8, 9, 5])
    assert (tables._repeats == before).all()
    write(tables, "b", LOOP * 6)
    assert of_row(propose(tables, ("a", [0, 6, 7, 8])), 0)[:2] == [9, 5]


def test_reset_forgets_everything() -> None:
    tables, fresh = drafter(), drafter()
    write(tables, "a", LOOP * 6)
    tables.read("a", LOOP * 3)
    tables.reset()
    assert propose(tables, ("a", [10, 11, 12, 13])).counts[0] == 0
    write(tables, "b", LOOP * 2)
    write(fresh, "b", LOOP * 2)
    asked = [("b", (LOOP * 2)[at : at + WINDOW]) for at in range(8)]
    assert (propose(tables, *asked).ids == propose(fresh, *asked).ids).all()
