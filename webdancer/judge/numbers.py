"""Numbers in the notations that answers come in: grouped digits, English words, ordinals; `chinese.py` has the Chinese ones."""

import re
from decimal import Decimal

from webdancer.judge.chinese import CJK, even_chinese_numerals, whole_chinese_number

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINAL_WORDS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth"
)
_TENS = {word: 10 * value for value, word in enumerate(_TENS_WORDS.split(), 2)}
_SMALL = {word: value for value, word in enumerate(_WORDS.split())} | _TENS
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS = {word: value for value, word in enumerate(_ORDINAL_WORDS.split(), 1)}
_ORDINALS |= {word[:-1] + "ieth": value for word, value in _TENS.items()}
_ORDINAL = re.compile(rf"\b(?:({'|'.join(_TENS)})[-\s])?({'|'.join(sorted(_ORDINALS, key=len, reverse=True))})\b")
_GROUPED = re.compile(rf"(?<![^\W{CJK}])(?<![.,])\d{{1,3}}(?:,\d{{3}})+(?![\d,])")
_SPACED = re.compile(r"\d{1,3}(?: \d{3})+")
_SCALED = re.compile(r"(\d+(?:\.\d+)?)\s*(thousand|million|billion|trillion)")


def even_digit_groups(text: str) -> str:
    """`1,234,567` becomes `1234567`; digits grouped by spaces do so only where they are the whole text."""
    if _SPACED.fullmatch(text.strip(" .")):
        return text.replace(" ", "")
    return _GROUPED.sub(lambda m: m.group().replace(",", ""), text)


def even_ordinals(text: str) -> str:
    """`third` becomes `3rd`, `twenty-first` becomes `21st`, `第三` becomes `第3`, `二十世纪` becomes `20世纪`."""

    def digits(match: re.Match[str]) -> str:
        tens, last = match.groups()
        value = _ORDINALS[last]
        if tens:
            if value >= 10:
                return match.group()
            value += _TENS[tens]
        return f"{value}{ordinal_suffix(value)}"

    return even_chinese_numerals(_ORDINAL.sub(digits, text))


def ordinal_suffix(value: int) -> str:
    """`st`, `nd`, `rd` or `th`."""
    return "th" if value // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")


def spelled_number(text: str) -> str | None:
    """Digits of a number that is written in words, with a scale (`1.5 million`), or in Chinese, there with its measure word;
    None for other text.
    """
    if match := _SCALED.fullmatch(text):
        value = Decimal(match[1]) * _SCALES[match[2]]
        return str(int(value)) if value == value.to_integral_value() else None
    english = _english_number(text)
    return whole_chinese_number(text) if english is None else str(english)


def _english_number(text: str) -> int | None:
    """`one hundred and twenty-one` → 121. None where the words do not follow the grammar of one number."""
    words = [word for word in re.split(r"[-\s]+", text) if word]
    total, group, last = 0, 0, 10**15
    previous = ""
    for word in words:
        if word in _SMALL:
            value = _SMALL[word]
            after_tens = previous in _TENS
            if previous in _SMALL and not (after_tens and 1 <= value <= 9):
                return None
            group += value
        elif word == "hundred" and 1 <= group <= 9:
            group *= 100
        elif word in _SCALES and group and _SCALES[word] < last:
            last = _SCALES[word]
            total, group = total + group * last, 0
        elif not (word == "and" and (previous == "hundred" or previous in _SCALES)):
            return None
        previous = word
    return total + group if words and previous != "and" else None
