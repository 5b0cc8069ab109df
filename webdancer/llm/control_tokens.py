"""Spellings that steer chat models, and how text from outside loses them.

A server's tokenizer reads its control tokens in any text that it is given, whoever wrote it. Which ones it has is not known
here, so the spellings of all common families are parted: ChatML and its kin (`<|im_end|>`), DeepSeek (`<｜User｜>`, and its
`｜DSML｜`, which is a token without a bracket), Llama 2 and Mistral (`</s>`, `[INST]`), Gemma, GLM, MiniMax, Seed and others.
"""

import re

ZERO_WIDTH_SPACE = "\u200b"
_AFTER = {
    "<": r"[\s/]*(?:[|｜]|(?i:s|bos|eos|pad|unk|mask|cls|sep|eod|sop|eop|sys|start_of_\w+|end_of_\w+|unused\d+"
    r"|reserved_\w+|special_\d+|[be]o[sp]_token|fim_\w+|(?:seed|minimax):\w+)\b)",
    "[": r"/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID|ARGS|THINK|IMG"
    r"|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|MODEL_SETTINGS|PREFIX|MIDDLE|SUFFIX|[gs]?MASK)\]|e~\[",
    "]": r"~!?b[\[\]]",
    "｜": r"DSML｜",
}
"""What follows a control token's first character."""


class TokenStarts:
    """Finds the first character of every control token, and each `<` that `after_angle` follows.

    A pattern a character, and none for a character that the text lacks: far faster on long text than one pattern for all.
    """

    def __init__(self, after_angle: str | None = None) -> None:
        after = _AFTER if after_angle is None else {**_AFTER, "<": f"{after_angle}|{_AFTER['<']}"}
        self._patterns = {first: re.compile(f"{re.escape(first)}(?={rest})") for first, rest in after.items()}

    def part(self, text: str) -> str:
        """The text with a zero-width space behind each of them."""
        for first, pattern in self._patterns.items():
            if first in text:
                text = pattern.sub(first + ZERO_WIDTH_SPACE, text)
        return text

    def escape(self, text: str) -> str:
        """The JSON text with each of them written as its number."""
        for first, pattern in self._patterns.items():
            if first in text:
                text = pattern.sub(rf"\\u{ord(first):04x}", text)
        return text


_CONTROL = TokenStarts()


def part_control_tokens(text: str) -> str:
    """The text with a zero-width space behind the first character of everything that could be read as a control token."""
    return _CONTROL.part(text)
