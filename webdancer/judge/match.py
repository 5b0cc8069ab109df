"""Normalised exact match: the same answer in another spelling is equal, and nothing else is.

What is evened out: case, accents on Latin letters, full-width forms, articles, quotation marks, commas, a final full stop,
dotted initials, digit grouping, numbers in words, ordinals, and full dates in English, Chinese and ISO notation; in Chinese
also spaces, title marks and numerals (`三十二人` is `32人`). Suffixes stay (`北京` is not `北京市`), and so does the script:
traditional and simplified characters are told apart, but for numerals; the judge role knows better. What
carries meaning stays: signs, decimals, currency, `+`, `#`, `%`, ranges, day-month order that could be read both ways.
Two strings match when their normal forms are equal, so matching is an equivalence.
"""

import re
import unicodedata

from webdancer.judge.chinese import CJK
from webdancer.judge.dates import replace_dates
from webdancer.judge.numbers import even_digit_groups, even_ordinals, spelled_number

_QUOTES = re.compile("[“”„‟«»‹›「」『』《》〈〉【】〔〕〖〗]")
_PAIRED_QUOTES = re.compile(r"""(?:(?<=^)|(?<=[\s(]))(["'])(.+?)\1(?=$|[\s).,;:!?])""")
_SUPERSCRIPT = re.compile(r"(?<=\d)[⁰¹²³⁴-⁹⁺⁻]+")
_VULGAR_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_DASHES = re.compile(r"[‐-―−﹘﹣－]")
_INITIALS = re.compile(r"\b[^\W\d_]\.(?:\s?[^\W\d_]\.)+|\b[^\W\d_](?:\.[^\W\d_])+\b(?!\.?\w)")
_LEADING_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)(?!(?:major|minor|flat|sharp)\b)")
_SPACE_BY_CJK = re.compile(rf"(?<=[{CJK}])\s+|\s+(?=[{CJK}])")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "ı": "i"})


def exact_match(reference: str, answer: str) -> bool:
    """Is `answer` the reference, up to spelling? An empty answer matches nothing."""
    return bool(answer.strip()) and normalise(reference) == normalise(answer)


def normalise(text: str) -> str:
    """The normal form of an answer; equal for two spellings of one answer.

    Text that consists of nothing but punctuation is its own normal form.
    """
    plain = _unify_characters(text)
    plain = replace_dates(even_digit_groups(plain))
    whole = spelled_number(plain.strip(" .!?。"))
    if whole is not None:
        return whole
    return _strip_marks(even_ordinals(plain)) or " ".join(text.split())


def _unify_characters(text: str) -> str:
    """One case, one width, one kind of dash and quotation mark, no accents on Latin letters, no invisible marks."""
    text = _SUPERSCRIPT.sub(lambda m: "^" + m.group(), text)  # 5² is not 52
    text = _VULGAR_FRACTION.sub(" ", text)  # 3½ is not 31/2
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3})", ",", text)  # spaces that only ever group digits
    text = _DASHES.sub("-", text)
    text = _QUOTES.sub(" ", re.sub("[’‘‚‛′`´]", "'", text)).replace("″", '"')
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")
    text = _strip_latin_accents(text.casefold()).translate(_LETTERS)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return " ".join(text.split())


def _strip_latin_accents(text: str) -> str:
    """Drop combining marks that follow a Latin letter; in other scripts they make another letter."""
    kept: list[str] = []
    base_is_latin = False
    for char in unicodedata.normalize("NFD", text):
        if not unicodedata.combining(char):
            base_is_latin = "a" <= char <= "z"
        elif base_is_latin:
            continue
        kept.append(char)
    return unicodedata.normalize("NFC", "".join(kept))


def _strip_marks(text: str) -> str:
    """Drop articles, quotation marks and punctuation that carries no meaning."""
    text = re.sub(r"\*\*(.+?)\*\*", r"\1", text)
    text = _PAIRED_QUOTES.sub(r"\2", text)
    text = re.sub(r"(?<!\d)[\"']", "", text)  # behind a digit they are feet and inches
    text = _INITIALS.sub(lambda m: re.sub(r"[.\s]", "", m.group()) + " ", text)
    text = _LEADING_ARTICLE.sub("", text.strip())
    text = re.sub(r"\bthe\s+(?=\S)", "", text)
    text = re.sub(r"\s+(?:percent|per cent)\b", "%", text)
    text = re.sub(r"(?<=\d)\s+%", "%", text)
    text = re.sub(r"(?<=\d)\s*-\s*(?=\d)", "-", text)
    text = re.sub(r"(?<=[^\W\d])-(?=\w)|(?<=\w)-(?=[^\W\d])|(?<!\S)-(?!\S)", " ", text)  # a minus sign stays
    text = re.sub(r"(?<!\d)!|[?;,()\[\]{}。、·•・‧]|:(?!\d)|(?<!\d):", " ", text)
    text = re.sub(r"\.(?!\w)", " ", text.replace("&", " and "))
    return _SPACE_BY_CJK.sub("", " ".join(text.split()))
