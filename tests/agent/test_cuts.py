"""Cutting snippets and evidence for a small context."""

from hypothesis import given
from hypothesis import strategies as st

from webdancer.agent.cuts import cut_evidence, cut_snippet

POSTS = "I think the founder of Orn is Ada Lunt. As far as I know, the head office of Orn is Velm. It rains."


def test_without_a_limit_nothing_changes():
    assert cut_snippet("Orn Orn is a river.", "orn", title="Orn", max_chars=None) == "Orn Orn is a river."
    assert cut_evidence("a\nb", max_chars=None) == "a\nb"


def test_what_fits_stays_but_for_its_title():
    assert cut_snippet("Orn Orn is a river.", "x", title="Orn", max_chars=15) == "Orn is a river."
    assert cut_snippet("Orn Length | 9 km", "x", title="Orn", max_chars=20) == "Length | 9 km"
    assert cut_snippet("Orns are rivers.", "x", title="Orn", max_chars=20) == "Orns are rivers."
    assert cut_snippet("Orn is a river.", "x", title="Orn", max_chars=20) == "Orn is a river."
    assert cut_snippet("Orn", "x", title="Orn", max_chars=20) == ""


def test_the_sentence_that_shares_most_words_with_the_query_stays():
    cut = cut_snippet(POSTS, "Orn head office", title="Orn: talk", max_chars=60)
    assert cut == "As far as I know, the head office of Orn is Velm."
    assert cut_snippet(POSTS, "Orn founder", title="x", max_chars=60) == "I think the founder of Orn is Ada Lunt."


def test_chosen_sentences_stand_in_their_order_and_those_without_a_word_of_the_query_are_left_out():
    # 39 + 1 + 49 = 89 characters; "It rains." would fit but shares nothing with the query.
    cut = cut_snippet(POSTS, "Orn head office", title="x", max_chars=98)
    assert cut == "I think the founder of Orn is Ada Lunt. As far as I know, the head office of Orn is Velm."
    assert len(cut) == 89
    assert cut_snippet(POSTS, "Orn head office", title="x", max_chars=88).startswith("As far")


def test_a_sentence_that_is_too_long_is_cut_behind_a_word():
    assert cut_snippet("The Orn is a long river of Belmar.", "orn", title="x", max_chars=20) == "The Orn is a long …"
    assert cut_snippet("x" * 40, "orn", title="t", max_chars=20) == "x" * 18 + " …"


def test_the_full_stop_of_an_initial_ends_no_sentence():
    text = "The spouse of Orn is R. Lind of Velm. More words stand here."
    assert cut_snippet(text, "orn", title="x", max_chars=40) == "The spouse of Orn is R. Lind of Velm."


def test_evidence_is_cut_after_a_whole_line_and_says_so():
    evidence = "## Novels\n- Ashes (1958)\n- Salt (1961)\n"
    assert cut_evidence(evidence, max_chars=38) == "## Novels\n- Ashes (1958)\n- Salt (1961)"
    assert cut_evidence(evidence, max_chars=37) == "## Novels\n- Ashes (1958)\n…"
    assert cut_evidence(evidence, max_chars=26) == "## Novels\n- Ashes (1958)\n…"
    assert cut_evidence(evidence, max_chars=25) == "## Novels\n…"


def test_a_first_line_that_is_too_long_is_cut_behind_a_word():
    assert cut_evidence("The Orn is a long river.\nMore.", max_chars=15) == "The Orn is a …"


@given(st.text(alphabet="ab.… \nÄ。", max_size=120), st.text(alphabet="ab ", max_size=9), st.integers(20, 60))
def test_nothing_is_longer_than_its_limit(text: str, query: str, most: int):
    line = " ".join(text.split())
    assert len(cut_snippet(line, query, title="a", max_chars=most)) <= most
    assert len(cut_evidence(text, max_chars=most)) <= most


def test_chinese_evidence_is_cut_behind_a_clause_or_a_character_not_at_the_first_space():
    text = "江城大桥 是江城市的一座桥梁，建成于一九三一年，由工程师蒂尔达设计，全长三百二十米，横跨萨恩河，是该市最古老的桥。"
    cut = cut_evidence(text, max_chars=40)
    assert cut == "江城大桥 是江城市的一座桥梁，建成于一九三一年，由工程师蒂尔达设计， …"
    assert len(cut) <= 40
    assert cut_evidence("桥" * 100, max_chars=20) == "桥" * 18 + " …"


def test_chinese_sentences_of_a_snippet_are_joined_without_spaces():
    snippet = "大桥建成于一九三一年。天气很好。设计者是蒂尔达。游客很多，风景优美，常有人来此拍照留念。"
    cut = cut_snippet(snippet, "大桥设计者是谁，何年建成", title="大桥", max_chars=24)
    assert cut == "大桥建成于一九三一年。设计者是蒂尔达。"
