"""Spellings that steer chat models, and how text from outside loses them.

A server's tokenizer reads its control tokens in any text that it is given, whoever wrote it. Which ones it has is not known
here, so the spellings of all common families are parted: ChatML and its kin (`<|im_end|>`), DeepSeek (`<｜User｜>`, and its
`｜DSML｜`, which is a token without a bracket), Llama 2 and Mistral (`</s>`, `[INST]`), Gemma, GLM, MiniMax, Seed and others.
"""

import re

ZERO_WIDTH_SPACE = "\u200b"
_CONTEXTS = (
    r"(?<=<)(?=[\s/]*(?:[|｜]|(?i:s|bos|eos|pad|unk|mask|cls|sep|eod|sop|eop|sys|start_of_\w+|end_of_\w+|unused\d+"
    r"|reserved_\w+|special_\d+|[be]o[sp]_token|fim_\w+|(?:seed|minimax):\w+)\b))",
    r"(?<=\[)(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID|ARGS|THINK|IMG"
    r"|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|MODEL_SETTINGS|PREFIX|MIDDLE|SUFFIX|[gs]?MASK)\]|e~\[)",
    r"(?<=\])(?=~!?b[\[\]])",
    r"(?<=｜)(?=DSML｜)",
)
"""What stands on both sides of the place behind a control token's first character."""


def token_starts(*contexts: str) -> re.Pattern[str]:
    """Finds the first character of every control token, and of what else the contexts tell (each looks behind at a `<`).

    All begin with one of four characters, so that the search skips from one to the next.
    """
    return re.compile(rf"[<\[\]｜](?:{'|'.join((*contexts, *_CONTEXTS))})")


_START = token_starts()


def part_control_tokens(text: str) -> str:
    """The text with a zero-width space behind the first character of everything that could be read as a control token."""
    return _START.sub(rf"\g<0>{ZERO_WIDTH_SPACE}", text)
