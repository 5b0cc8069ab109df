"""Chinese numerals in answers: `三十二`, `一百零五`, `两万`, `1亿2000万`, `二〇二一年`, `百分之三点五`, `三分之一`.

They are read where one reading is possible and where what stands around them says that they are a number: alone, before a
measure word, behind `第`, in years, decades, centuries, shares and fractions. Inside other words they are part of a name
(`三体`, `四川`) and stay as they are. Colloquial forms that leave a unit out (`一百二` for 120) are not read.
"""

import re
from decimal import Decimal

CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""For a character class: the letters of Chinese and Japanese, which part their words by no space."""
DIGITS = {digit: value for value, digit in enumerate("〇一二三四五六七八九")} | {"零": 0, "○": 0}
"""As in years, which are read digit by digit."""
_DIGITS = DIGITS | {"两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_SCALES = {"万": 10**4, "亿": 10**8}
_DIGIT, _NUMERAL = "[〇○零一二三四五六七八九]", "[〇○零一二三四五六七八九十百千万亿两]"
_OTHER_FORMS = str.maketrans(
    "兩萬億貳參陸壹贰叁肆伍陆柒捌玖拾佰仟", "两万亿二三六一二三四五六七八九十百千"
)  # traditional and financial
_MEASURES = (
    "个個人名位座部本次岁歲年月天日周所家条條米层層届屆集首枚只隻章卷区區县縣支张張件项項场場局轮輪队隊艘架辆輛台栋棟秒种種"
    "类類课課页頁期版级級号號度倍元吨噸克升篇"
)
_LONG_MEASURES = (
    "平方公里|平方米|公里|千米|厘米|毫米|公顷|公頃|千克|公斤|小时|小時|分钟|分鐘|美元|欧元|歐元|日元|英镑|英鎊"
)

_YEAR = re.compile(rf"(?<!{_NUMERAL})({_DIGIT}{{4}})(?=年)")
_ORDINAL = re.compile(rf"第({_NUMERAL}+)")
_PERIOD = re.compile(rf"(?<!{_NUMERAL})({_NUMERAL}+)(?=世纪|世紀|年代)")
_SHARE = re.compile(rf"百分之(\d+(?:\.\d+)?|{_NUMERAL}+(?:点{_DIGIT}+|點{_DIGIT}+)?)")
_MEASURED = re.compile(rf"(.+?)\s*({_LONG_MEASURES}|[{_MEASURES}])")
_FRACTION = re.compile(rf"(\d+|{_NUMERAL}+)分之(\d+|{_NUMERAL}+)")
_SCALED = re.compile(r"(\d+(?:\.\d+)?)\s*([十百千]?[万亿]|[百千])")
_YEAR_ALONE = re.compile(rf"[一二]{_DIGIT}{{3}}")


def even_chinese_numerals(text: str) -> str:
    """Numerals inside a text in digits where they can be nothing else: ordinals, years, decades, centuries, shares."""
    text = _YEAR.sub(lambda m: _by_digits(m[1]), text)
    text = _PERIOD.sub(lambda m: _shown(chinese_number(m[1]), otherwise=m[0]), text)
    text = _SHARE.sub(lambda m: m[0] if (share := _decimal(m[1])) is None else f"{share}%", text)
    return _ORDINAL.sub(lambda m: "第" + _shown(chinese_number(m[1]), otherwise=m[1]), text)


def _by_digits(text: str) -> str:
    return "".join(str(DIGITS[digit]) for digit in text)


def _shown(number: int | None, *, otherwise: str) -> str:
    return otherwise if number is None else str(number)


def whole_chinese_number(text: str) -> str | None:
    """Digits of a text that is a number as a whole, with its measure word where it has one; None for other text."""
    if text[:1] in ("负", "負") and text[1:]:
        positive = _magnitude(text[1:])
        return None if positive is None else f"-{positive}"
    if match := _FRACTION.fullmatch(text):
        parts = [_decimal(part) for part in match.groups()]
        return None if None in parts else f"{parts[1]}/{parts[0]}"
    if (number := _magnitude(text)) is not None:
        return number
    if (match := _MEASURED.fullmatch(text)) and (number := _magnitude(match[1])) is not None:
        return f"{number}{match[2]}"
    return None


def _magnitude(text: str) -> str | None:
    """Digits of a number without sign and measure word, where it is written with at least one Chinese numeral."""
    text = text.translate(_OTHER_FORMS)
    if _YEAR_ALONE.fullmatch(text):
        return _by_digits(text)
    if (number := chinese_number(text)) is not None:
        return str(number)
    if re.fullmatch(rf"{_NUMERAL}+[点點]{_DIGIT}+[万亿]", text):
        value = _decimal(text[:-1])
        return None if value is None else _whole(value * _SCALES[text[-1]])
    return _scaled(text)


def _scaled(text: str) -> str | None:
    """`1.4亿`, `5百万`, `1亿2000万`: digits with Chinese units, each part below the unit before it."""
    total, last, end = Decimal(0), Decimal("Infinity"), 0
    for part in _SCALED.finditer(text):
        unit = 1
        for char in part[2]:
            unit *= (_UNITS | _SCALES)[char]
        value = Decimal(part[1]) * unit
        if text[end : part.start()].strip() or value >= last:
            return None
        total, last, end = total + value, Decimal(unit), part.end()
    return _whole(total) if end and end == len(text) else None


def _whole(value: Decimal) -> str | None:
    return str(int(value)) if value == value.to_integral_value() else None


def _decimal(text: str) -> Decimal | None:
    """Digits, a Chinese integer, or one with decimals behind `点`."""
    if text.isascii():
        return Decimal(text)
    whole, _, decimals = text.replace("點", "点").partition("点")
    number = chinese_number(whole)
    return None if number is None else Decimal(f"{number}.{_by_digits(decimals)}" if decimals else number)


def chinese_number(text: str) -> int | None:
    """`一百二十三` → 123. None where the characters do not follow the grammar of one number."""
    text = text.translate(_OTHER_FORMS)
    if not text or any(char not in _DIGITS | _UNITS | _SCALES for char in text):
        return None
    total, group, digit = 0, 0, None
    last_unit, last_scale = 10**4, 10**12
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if char in _DIGITS:
            if digit:  # two digits in a row: a year or a telephone number
                return None
            if before in "百千万亿" and char not in "零〇○" and after not in _UNITS:  # colloquial: 一百二 is 120
                return None
            digit = _DIGITS[char]
        elif char in _UNITS:
            unit = _UNITS[char]
            if unit >= last_unit or digit == 0 or (digit is None and not (unit == 10 and group == 0)):
                return None
            group, digit, last_unit = group + (1 if digit is None else digit) * unit, None, unit
        else:
            scale = _SCALES[char]
            group += digit or 0
            if scale >= last_scale or group == 0:
                return None
            total, group, digit, last_unit, last_scale = total + group * scale, 0, None, 10**4, scale
    return total + group + (digit or 0)
