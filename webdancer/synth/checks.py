"""Checks of questions and descriptions as texts: is it a question, does it give its answer away, is the name gone?

Pure functions over strings. They compare tokens: case, accents and punctuation do not count, numbers are whole tokens,
and every Chinese, Japanese or Korean character is a token of its own, because those scripts do not part their words. Where a
text's length matters, such a character is 5/8 of a word, and three letters.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from webdancer.judge.chinese import CJK
from webdancer.records import QAKind
from webdancer.synth.outcomes import DropReason

MAX_ANSWER_CHARS = 100
"""A longer answer is a sentence, which no exact match can score."""

MIN_EVIDENCE_PAGES = 2
"""A question that fewer pages answer needs no agent."""

_MIN_STEM = 4
"""A name of at least so many letters is given away by a longer word that opens with it: Belmar, Belmarian."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SYLLABIC = rf"{CJK}\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_SYLLABIC}]|[^\W_{_SYLLABIC}]+")
_CJK = re.compile(f"[{CJK}]")
_REFERS_TO_PAGE = re.compile(
    r"\b(?:this|these|above|given|provided|mentioned) (?:web ?)?(?:pages?|texts?|articles?|passages?|documents?)\b"
    r"|\b(?:according to|in|on|from) the (?:pages?|texts?|passages?|documents?)\b"
    # 日本文学 and 世界上文字 hold 本文 and 上文 as well: what stands before must be able to end a word.
    r"|(?:^|[\s，。、；：,:“《]|根据|依据|按照|请问|据|在|从|与)"
    r"(?:(?:本|此|该|上|下|这篇|这段|以上|上述)(?:网?页面?|文章|文本|文档|段落|资料|材料|文(?![化学物件明字职科艺献集豪])))"
    r"|(?:本|此|该|这个|这一)(?:网页|页面)|(?:^|[\s，。、,“])文中",
    re.IGNORECASE,
)
_PLACE_SUFFIX = re.compile(
    rf"(?<=[{CJK}]{{2}})(?:特别行政区|自治区|自治州|自治县|市|省|县|縣|区|區|镇|鎮|乡|鄉|村|州)$"
)
"""What Chinese sets behind a place's name or leaves out: 江城 and 江城市 are one place."""
_GENERIC_SUFFIX = re.compile(
    rf"(?<=[{CJK}]{{2}})(?:大学|学院|中学|小学|学校|大桥|桥|公司|集团|博物馆|纪念馆|图书馆|美术馆|故居|医院|研究所|研究院|铁路|机场|车站|站"
    "|公园|广场|寺|山|河|江|湖|岛|市|省|县|区|镇|乡|村|国|奖|战役|条约|号|队|剧院|出版社)$"
)
_SITE_NAME = re.compile(r"\s*[-_—–|｜]+\s*[^-_—–|｜]*(?:百科|百科全书|网|网站|官网|新闻|论坛)$")
"""`江城大桥_某某百科`: Chinese sites set their name behind a mark without spaces."""
_ARTICLES = frozenset({"a", "an", "the"})


def tokens(text: str) -> list[str]:
    """Words and numbers of a text, folded: no case, accents, punctuation or thousands separators."""
    if text.isascii():
        return _TOKEN.findall(_THOUSANDS.sub("", text.lower()))
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    folded = "".join(char for char in folded if not unicodedata.combining(char))
    return _TOKEN.findall(unicodedata.normalize("NFC", _THOUSANDS.sub("", folded)))


def fold(text: str) -> str:
    """A text's tokens joined by spaces: equal for texts that differ in case and punctuation only."""
    return " ".join(tokens(text))


def num_words(text: str) -> float:
    """Words of a text, where a Chinese or Japanese character is 5/8 of one."""
    found = tokens(text)
    num_characters = sum(1 for token in found if _CJK.match(token))
    return len(found) - num_characters * 3 / 8


def text_size(text: str) -> int:
    """Characters of a text as they would be in English: a Chinese or Japanese one says as much as three."""
    return len(text) + 2 * len(_CJK.findall(text))


def contains_name(text: str, name: str) -> bool:
    """Whether `name` stands in `text` as whole words. The last word may go on, unless it is short or a number."""
    wanted = fold(name)
    if not wanted:
        return False
    end = "" if len(wanted) >= _MIN_STEM and not wanted[-1].isdigit() else " "
    return f" {wanted}{end}" in f" {fold(text)} "


def question_hash(question: str) -> str:
    """Eight hex digits that stand for the question in ids."""
    return hashlib.sha256(fold(question).encode()).hexdigest()[:8]


def base_title(title: str) -> str:
    """A page's title without what tells it from its namesakes or names its site: `Ana Velk (architect) | Wiki`."""
    title = re.split(r" [|–—·-] |｜", title, maxsplit=1)[0]
    title = _SITE_NAME.sub("", title) or title
    return re.sub(r"\s*(?:\([^()]*\)|（[^（）]*）)\s*$", "", title).strip() or title.strip()


def check_question(question: str, answer: str, kind: QAKind | None) -> tuple[DropReason, str] | None:
    """What is wrong with a question and its answer by themselves; `kind` is None for the simple questions."""
    if not question.endswith(("?", "？")) or num_words(question) < 3:
        return DropReason.NOT_A_QUESTION, question[-40:]
    if found := _REFERS_TO_PAGE.search(question):
        return DropReason.REFERS_TO_PAGE, found.group()
    if not tokens(answer):
        return DropReason.EMPTY_ANSWER, ""
    if len(answer) > MAX_ANSWER_CHARS or "\n" in answer:
        return DropReason.LONG_ANSWER, f"{len(answer)} characters"
    if kind is QAKind.COUNT and not answer.isdecimal():
        return DropReason.NOT_A_NUMBER, answer
    if told := told_answer(question, answer):
        return DropReason.LEAKS_ANSWER, told
    return None


def told_answer(text: str, answer: str) -> str | None:
    """The answer as it stands in a text, a place's also without its suffix (`江城` for `江城市`); None where it does not."""
    return next((form for form in (answer, _PLACE_SUFFIX.sub("", answer)) if contains_name(text, form)), None)


def check_evidence(
    urls: Iterable[str], given: Iterable[str], *, num_pages: int = MIN_EVIDENCE_PAGES
) -> tuple[DropReason, str] | None:
    """What is wrong with a question's evidence: pages that were not given, or fewer than `num_pages` of them."""
    evidence = set(urls)
    if outside := evidence - set(given):
        return DropReason.EVIDENCE_OUTSIDE, min(outside)
    if len(evidence) < num_pages:
        return DropReason.TOO_FEW_PAGES, f"{len(evidence)} of {num_pages}"
    return None


def telling_parts(entity: str, usage: str) -> list[str]:
    """The words of a name that give it away: `Orsk` of `Orsk Bridge`.

    A word that `usage` also writes in lower case (`bridge`) is an ordinary word. Where all are, the name's parts
    tell nothing, and only the name as a whole does. Of a Chinese name it is what stands before the kind of thing (`江城` of
    `江城大桥`) and, of three characters and more, the first two.
    """
    ordinary = set(re.findall(r"\b[a-z]\w*", usage))
    words = [word for word in re.findall(r"[^\W_]+", entity) if len(word) > 1]
    told = [w for w in words if not w.isdecimal() and w.lower() not in ordinary and w.lower() not in _ARTICLES]
    chinese = [word for word in told if _CJK.fullmatch(word[0]) and len(word) > 2 and word[0] != "第"]
    return list(dict.fromkeys([*told, *(_GENERIC_SUFFIX.sub("", word) for word in chinese), *(w[:2] for w in chinese)]))


def check_description(description: str, *, entity: str, answer: str, question: str, knowledge: str) -> str | None:
    """Why a description may not take the entity's place, or None."""
    if not re.match(r"the\s", description, re.IGNORECASE) and not _CJK.match(description):
        return f"does not start with 'the': {description[:40]!r}"
    if contains_name(description, entity):
        return f"names the entity {entity!r}"
    for part in telling_parts(entity, f"{knowledge}\n{question}\n{description}"):
        if contains_name(description, part):
            return f"holds {part!r} of the name {entity!r}"
    if told := told_answer(description, answer):
        return f"holds the answer {told!r}"
    if num_words(description) < 3:
        return f"says too little: {description!r}"
    if contains_name(question, description):
        return "stands in the question already"
    return None


def check_rewrite(rewritten: str, *, entity: str, description: str, answer: str) -> str | None:
    """Why a rewritten question does not do, or None."""
    if problem := check_question(rewritten, answer, None):
        return f"{problem[0]}: {problem[1]}"
    if contains_name(rewritten, entity):
        return f"still names {entity!r}"
    if fold(description).removeprefix("the ") not in fold(rewritten):
        return "does not hold the description"
    return None
