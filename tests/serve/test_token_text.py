"""Tokens that come one by one: their texts, and what is held back until it is certain."""

from collections.abc import Sequence
from itertools import accumulate, chain

from hypothesis import given
from hypothesis import strategies as st

from webdancer.llm.protocol import SampledToken
from webdancer.serve.token_text import TokenText

BYTES = [bytes([n]) for n in range(256)]


def decode(ids: Sequence[int]) -> str:
    """Ids are bytes; those above 255 are short texts."""
    return b"".join(BYTES[i] if i < 256 else b"ab" * (i - 255) for i in ids).decode("utf-8", "replace")


def read(ids: Sequence[int], stop: Sequence[str], *, step: int) -> tuple[TokenText, list[list[SampledToken]]]:
    text, taken = TokenText(decode, stop), []
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        text.add(part, [float(-n) for n in range(start, start + len(part))])
        taken.append(text.take())
    text.end()
    return text, [*taken, text.take()]


def texts(tokens: Sequence[SampledToken]) -> list[str]:
    return [token.text for token in tokens]


def test_a_character_belongs_to_the_last_of_its_tokens():
    ids = list("V桥x".encode())
    text, taken = read(ids, [], step=1)
    assert texts(text.tokens) == ["V", "", "", "桥", "x"]
    assert [texts(tokens) for tokens in taken] == [["V"], [], [], ["", "", "桥"], ["x"], []]


def test_a_character_that_stays_incomplete_is_told_at_the_end():
    text, taken = read([86, *"桥".encode()[:2]], [], step=1)
    assert texts(text.tokens) == ["V", "", "\ufffd"]
    assert [texts(tokens) for tokens in taken] == [["V"], [], [], ["", "\ufffd"]]


def test_what_may_begin_a_stop_string_waits():
    text, taken = read(list(b"a\n\nb\nc"), ["\n\n\n", "\nc"], step=1)
    assert [texts(tokens) for tokens in taken] == [["a"], [], [], ["\n", "\n", "b"], [], [], []]
    assert text.stopped
    assert texts(text.tokens) == ["a", "\n", "\n", "b"]


def test_parts_of_a_character_that_may_begin_a_stop_string_wait_with_it():
    text, taken = read(list("V桥梁".encode()), ["桥梁"], step=1)
    assert [texts(tokens) for tokens in taken] == [["V"], [], [], [], [], [], [], []]
    assert texts(text.tokens) == ["V"]


def test_a_stop_string_within_a_token_cuts_it():
    text, _ = read([256, 258, 257], ["baba"], step=3)
    assert "".join(texts(text.tokens)) == "a"


@given(
    st.lists(
        st.sampled_from([*([n] for n in (*b"ab\n", 256, 257, 258)), list("桥".encode()), list("梁".encode())])
        | st.lists(st.integers(0, 255), min_size=1, max_size=1),
        max_size=30,
    ).map(lambda parts: list(chain.from_iterable(parts))),
    st.lists(st.text("ab\nc桥梁", min_size=1, max_size=4), max_size=3),
    st.integers(1, 5),
)
def test_against_the_whole_text(ids: list[int], stop: list[str], step: int):
    text, taken = read(ids, stop, step=step)
    whole, _ = read(ids, [], step=1)
    content = "".join(texts(whole.tokens))
    assert content == decode(ids)
    # The stop string that is complete first is the one; of several that end together the longest.
    ends = [min(at for at in (content.find(s) for s in stop if content[:end].endswith(s)) if at >= 0)
            for end in range(len(content) + 1) if any(content[:end].endswith(s) for s in stop)]  # fmt: skip
    kept = "".join(texts(text.tokens))
    assert text.stopped == bool(ends)
    assert not any(s in kept for s in stop)
    assert content.startswith(kept)
    if not ends:
        assert kept == content
    flat = [token for tokens in taken for token in tokens]
    assert flat == text.tokens
    # Nothing is taken back, and no more is held back than a stop string can be.
    given_out = list(accumulate("".join(texts(tokens)) for tokens in taken))
    assert all(kept.startswith(part) for part in given_out)
    assert [token.logprob for token in flat] == [float(-n) for n in range(len(flat))]
