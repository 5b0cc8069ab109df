"""The choice of passages of a long page."""

from hypothesis import given
from hypothesis import strategies as st

from webdancer.agent.passages import choose_passages, terms


def test_a_page_that_fits_is_left_alone():
    assert choose_passages("a\nb", "goal", max_chars=3) == "a\nb"


def test_the_opening_and_the_nearest_passages_are_chosen_in_the_pages_order():
    lines = [f"filler {i} about nothing" for i in range(50)]
    lines[10] = "the bridge was opened in 1931"
    lines[40] = "its architect was Ada Lunt"
    text = choose_passages("\n".join(lines), "architect of the bridge", max_chars=120)
    # 25 + 32 + 29 characters for the opening and the two that match, each with its break; one more of 25 fits.
    assert text.split("\n") == [lines[0], lines[1], "…", lines[10], "…", lines[40]]


def test_rare_words_of_the_page_count_more():
    lines = [f"the city of number {i}" for i in range(30)]
    lines[20] = "a mayor"
    assert "a mayor" in choose_passages("\n".join(lines), "the mayor of the city", max_chars=60)


def test_chinese_is_compared_by_pairs_of_characters():
    assert terms("北京大学 of 3") == ["北京", "京大", "大学", "of", "3"]
    lines = ["天气很好今天没有雨" * 2] * 30
    lines[25] = "市长是王芳"
    assert "市长是王芳" in choose_passages("\n".join(lines), "谁是市长", max_chars=80)


@given(st.text(max_size=300), st.text(max_size=20), st.integers(1, 200))
def test_never_longer_than_asked(text, goal, max_chars):
    chosen = choose_passages(text, goal, max_chars=max_chars)
    assert len(chosen) <= max_chars
    if len(text) <= max_chars:
        assert chosen == text
