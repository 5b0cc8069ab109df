"""Exact match: the same answer in other clothes is equal, a different answer never is."""

from datetime import date

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from webdancer.judge.match import exact_match, normalise

SAME = [
    # dates
    ("3 March 1954", "March 3, 1954"),
    ("3 March 1954", "1954-03-03"),
    ("3 March 1954", "1954/3/3"),
    ("3 March 1954", "3rd of March, 1954"),
    ("3 March 1954", "Wednesday, March 3rd, 1954."),
    ("3 March 1954", "3 Mar. 1954"),
    ("3 March 1954", "03.03.1954"),
    ("3 March 1954", "on 3 March 1954"),
    ("3 March 1954", "1954年3月3日"),
    ("3 March 1954", "１９５４年３月３日"),
    ("3 March 1954", "一九五四年三月三日"),
    ("21 November 2005", "二〇〇五年十一月二十一日"),
    ("25 April 1954", "25/04/1954"),
    ("25 April 1954", "04/25/1954"),
    ("4 April 1954", "04/04/1954"),
    ("3 March 1954", "1954-03-03T00:00:00Z"),
    ("March 1954", "1954年3月"),
    ("3 March", "March 3rd"),
    ("Born 3 March 1954 in Velm", "born March 3, 1954, in Velm"),
    # numbers
    ("1234", "1,234"),
    ("1234567", "1,234,567"),
    ("1234567", "1 234 567"),
    ("1234", "1\u202f234"),
    ("1234", "１２３４"),
    ("7", "seven"),
    ("7", "七"),
    ("21", "Twenty-one"),
    ("121", "one hundred and twenty-one"),
    ("123", "一百二十三"),
    ("12", "十二"),
    ("1500000", "1.5 million"),
    ("32000", "3.2万"),
    ("-5", "−5"),
    ("1939-1945", "1939–1945"),
    ("50%", "50 percent"),
    ("1,234.5", "1234.5"),
    # ordinals
    ("3rd", "third"),
    ("the 21st century", "Twenty-First Century"),
    ("第三", "第3"),
    # marks, case, articles, accents
    ("The Orsk Bridge", "orsk bridge"),
    ("Orsk Bridge", "Orsk Bridge."),
    ("Orsk Bridge", '"Orsk Bridge"'),
    ("Orsk Bridge", "“The Orsk Bridge”"),
    ("Orsk Bridge", "**Orsk Bridge**"),
    ("Orsk Bridge", "  Orsk\n Bridge "),
    ("Apollo 13", '"Apollo 13"'),
    ("An Ninth Door", "Ninth Door"),
    ("Alexander the Great", "Alexander Great"),
    ("Zürich", "Zurich"),
    ("Zu\u0308rich", "ZÜRICH"),
    ("Łódź", "Lodz"),
    ("Straße", "STRASSE"),
    ("J. R. R. Tolkien", "J.R.R. Tolkien"),
    ("U.S.A.", "USA"),
    ("St. Louis", "St Louis"),
    ("O'Brien", "O’Brien"),
    ("Saint-Exupéry", "Saint Exupery"),
    ("Simon & Garfunkel", "Simon and Garfunkel"),
    ("Velm, Belmar", "Velm Belmar"),
    ("Velm", "Ｖｅｌｍ"),
    ("Velm", "Ve\u200blm\ufeff"),
    ("三体", "《三体》"),
    ("约翰·史密斯", "约翰•史密斯"),
    ("北京 大学", "北京大学。"),
    ("H2O", "H₂O"),
    ("!!!", "!!!"),
    # Chinese
    ("32", "三十二"),
    ("32", "３２。"),
    ("105", "一百零五"),
    ("105", "一百〇五"),
    ("2", "两"),
    ("200", "兩百"),
    ("20000", "两万"),
    ("30000", "三萬"),
    ("1980", "一千九百八十"),
    ("1984", "一九八四"),
    ("2005", "二○○五"),
    ("38000", "叁万捌仟"),
    ("120000000", "1亿2000万"),
    ("5000000", "5百万"),
    ("150000000", "一点五亿"),
    ("1400000000", "14 亿"),
    ("-5", "负五"),
    ("50%", "百分之五十"),
    ("3.5%", "百分之三点五"),
    ("约占 12%", "约占百分之十二"),
    ("1/3", "三分之一"),
    ("32人", "三十二 人"),
    ("2个", "两个"),
    ("30000人", "3万人"),
    ("105 座", "一百零五座"),
    ("3公里", "三公里"),
    ("45岁", "四十五岁"),
    ("1998年", "一九九八年"),
    ("1998年", "１９９８ 年"),
    ("20世纪60年代", "二十世纪六十年代"),
    ("第21届", "第二十一届"),
    ("第105次会议", "第一百零五次会议"),
    ("2021-03-03", "二〇二一年三月三日"),
    ("2021-03-03", "二零二一年三月三日（星期三）"),
    ("2021-03-03", "2021 年 3 月 3 日"),
    ("2021-03-03", "２０２１－０３－０３"),
    ("2021-03-03", "于2021年3月3日"),
    ("生于2021年3月3日", "生于2021-03-03。"),
    ("2021年12月", "二〇二一年十二月"),
    ("3月21日", "三月二十一日"),
    ("May the 4th", "5月4日"),
    ("共1234人", "共1,234人"),
    ("iPhone 手机", "iPhone手机"),
    ("“红河”号轮船", "「红河」号轮船"),
    ("《春江 水暖》", "春江水暖"),
    ("【春江水暖】", "春江水暖"),
    ("约翰‧史密斯", "约翰·史密斯"),
    ("北京、上海", "北京，上海"),
    ("々木", "々 木"),
]

DIFFERENT = [
    ("3 March 1954", "3 April 1954"),
    ("3 March 1954", "4 March 1954"),
    ("3 March 1954", "3 March 1955"),
    ("3 March 1954", "March 1954"),
    ("3 March 1954", "1954"),
    ("3 April 1954", "03/04/1954"),  # or 4 March: nobody knows
    ("4 March 1954", "03/04/1954"),
    ("31 February 1954", "3 March 1954"),
    ("2001-02", "February 2001"),  # a season
    ("1234", "1.234"),
    ("12", "1,2"),
    ("12", "1 2"),
    ("5", "-5"),
    ("5", "$5"),
    ("5", "5%"),
    ("5 km", "5 m"),
    ("52", "5²"),
    ("3 1/2", "31/2"),
    ("3.10", "3.1"),
    ("007", "7"),
    ("10:30", "1030"),
    ("1939-1945", "1939"),
    ("102", "一百二"),  # which is 120
    ("2", "二〇〇五"),
    ("21", "twenty"),
    ("3rd", "3"),
    ("third", "three"),
    ("C", "C++"),
    ("C", "C#"),
    (".NET", "net"),
    ("Vitamin A", "Vitamin"),
    ("A minor", "minor"),
    ("a-ha", "ha"),
    ("Ana Velk", "Ana Velk (architect)"),
    ("Ana Velk (painter)", "Ana Velk (architect)"),
    ("Velm", "Velm and Orsk"),
    ("Velm", "not Velm"),
    ("か", "が"),
    ("й", "и"),
    ("北京", "南京"),
    ("北京", "北京市"),
    ("北京大学", "北京"),
    ("32", "三十三"),
    ("32", "三百二"),
    ("32人", "32名"),
    ("32人", "32"),
    ("1998", "1998年"),
    ("98年", "1998年"),
    ("三体", "3体"),  # numerals inside a name are letters of it
    ("四川", "4川"),
    ("三亚", "四亚"),
    ("50%", "50"),
    ("1/3", "3/1"),
    ("第三届", "第四届"),
    ("第三", "3"),
    ("20世纪", "12世纪"),
    ("2021-03-03", "二〇二一年三月十三日"),
    ("2021-03-03", "2021年3月"),
    ("二〇二一年二月三十日", "2021-03-02"),
    ("1亿2万", "1亿2000万"),
    ("12", "一二"),
    ("鲁迅", "鲁达"),
    ("!!!", "???"),
    ("Velm", ""),
    ("", ""),
    (" ", "\n"),
]


@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_same(reference: str, answer: str) -> None:
    assert exact_match(reference, answer), (normalise(reference), normalise(answer))


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_different(reference: str, answer: str) -> None:
    assert not exact_match(reference, answer), normalise(answer)


def test_normal_forms() -> None:
    assert normalise("The 3rd of March, 1954.") == "1954-03-03"
    assert normalise("１，２３４") == "1234"
    assert normalise("“The Café”!") == "cafe"
    assert normalise("one million two hundred thousand and five") == "1200005"
    assert normalise("nineteen eighty-four") == "nineteen eighty four"  # a title, no number


MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905
CHINESE = "〇一二三四五六七八九"


def chinese(number: int) -> str:
    """1 to 99 in Chinese characters."""
    tens, ones = divmod(number, 10)
    return (CHINESE[tens] if tens > 1 else "") + ("十" if tens else "") + (CHINESE[ones] if ones else "")


def chinese_number(number: int) -> str:
    """0 to 99,999,999 in Chinese characters, written out by the rules of school."""
    if number >= 10_000:
        rest = number % 10_000
        gap = "零" if 0 < rest < 1000 else ""
        return chinese_number(number // 10_000) + "万" + gap + (chinese_number(rest) if rest else "")
    text, gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // unit % 10
        if digit:
            text += ("零" if gap and text else "") + "零一二三四五六七八九"[digit] + name
        gap = not digit
    return (text.removeprefix("一") if 10 <= number < 20 else text) or "零"


@given(st.integers(0, 99_999_999))
def test_a_chinese_number_is_read(number: int) -> None:
    assert normalise(chinese_number(number)) == str(number)
    assert exact_match(f"{number}人", f"{chinese_number(number)}人")
    assert exact_match(f"第{number}", f"第{chinese_number(number)}")


def spellings(day: date) -> list[str]:
    """A date in all notations that can be read in one way only."""
    month, year, number = MONTHS[day.month - 1], day.year, day.day
    return [
        f"{number} {month} {year}",
        f"{month} {number}, {year}",
        f"{month[:3].upper()} {number} {year}",
        f"{number} {month[:3]}. {year}",
        day.isoformat(),
        f"{year}/{day.month}/{number}",
        f"{number}.{day.month}.{year}",
        f"{year}年{day.month}月{number}日",
        "".join(CHINESE[int(d)] for d in str(year)) + f"年{chinese(day.month)}月{chinese(number)}日",
        day.strftime("%A") + f", {number} {month} {year}.",
    ]


DATES = st.dates(date(1000, 1, 1), date(2999, 12, 31))


@given(DATES, st.data())
def test_a_date_matches_itself_in_every_notation(day: date, data: st.DataObject) -> None:
    assert normalise(data.draw(st.sampled_from(spellings(day)))) == day.isoformat()


@given(DATES, DATES, st.data())
def test_two_dates_never_match(first: date, second: date, data: st.DataObject) -> None:
    assume(first != second)
    one, other = data.draw(st.sampled_from(spellings(first))), data.draw(st.sampled_from(spellings(second)))
    assert not exact_match(one, other)


ONES_TO_19 = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
ONES = ONES_TO_19.split()
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number: int) -> str:
    """English words of a number below a thousand million."""
    for scale, name in ((1_000_000, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= scale:
            rest = number % scale
            tail = f" {'and ' if scale == 100 else ''}{in_words(rest)}" if rest else ""
            return f"{in_words(number // scale)} {name}{tail}"
    if number < 20:
        return ONES[number]
    return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")


NUMBERS = st.integers(0, 10**9 - 1)


def number_spellings(number: int) -> list[str]:
    return [str(number), f"{number:,}", f"{number:,}".replace(",", " "), in_words(number).capitalize(), f" {number}. "]


@given(NUMBERS, st.data())
def test_a_number_matches_itself_in_every_notation(number: int, data: st.DataObject) -> None:
    assert normalise(data.draw(st.sampled_from(number_spellings(number)))) == str(number)


@given(NUMBERS | st.integers(0, 200), NUMBERS | st.integers(0, 200), st.data())
def test_two_numbers_never_match(first: int, second: int, data: st.DataObject) -> None:
    assume(first != second)
    one = data.draw(st.sampled_from(number_spellings(first)))
    assert not exact_match(one, data.draw(st.sampled_from(number_spellings(second))))


@given(st.decimals(-1000, 1000, places=3), st.decimals(-1000, 1000, places=3))
def test_two_decimals_never_match(first: object, second: object) -> None:
    assume(str(first) != str(second))
    assert not exact_match(str(first), str(second))


NAMES = st.lists(st.text("bcdeklmorstuvz", min_size=2, max_size=8), min_size=1, max_size=4).map(" ".join)


@given(NAMES, NAMES)
def test_two_names_never_match(first: str, second: str) -> None:
    assume(first != second)
    assume(not {"one", "two", "second", "dec", "oct"} & {*first.split(), *second.split()})
    assert not exact_match(first.title(), second)


@given(NAMES, st.sampled_from(["not ", "Old ", "north-", "Nr. ", "2 ", "- "]))
def test_a_word_more_is_another_answer(name: str, more: str) -> None:
    assume(more.strip() != "-")
    assert not exact_match(name, more + name)


@given(st.text(), st.text())
def test_matching_is_symmetric(first: str, second: str) -> None:
    assume(first.strip() and second.strip())
    assert exact_match(first, second) == exact_match(second, first)


@given(st.text(min_size=1))
def test_every_answer_matches_itself(text: str) -> None:
    assume(text.strip())
    assert exact_match(text, f" {text}\n")


@given(st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd"]), min_size=1))
def test_letters_and_digits_are_never_lost(text: str) -> None:
    assert normalise(text).strip()
