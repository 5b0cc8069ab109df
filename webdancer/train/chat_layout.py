"""What a ChatML template puts around the turns, found by trying it on probe conversations.

The template is asked only for this. It never renders an episode: the templates of reasoning models drop the thoughts of
earlier turns, which would change what the policy has read and written.
"""

from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from webdancer.errors import ConfigError

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
_SYSTEM = {"role": "system", "content": "Mind the tides."}
_USER = {"role": "user", "content": "When is the flood?"}
_LATER = ({"role": "assistant", "content": "At noon."}, {"role": "user", "content": "And the ebb?"})
_OPENING = f"{TURN_START}assistant\n"


class ChatLayout(NamedTuple):
    """What differs between layouts of the ChatML family."""

    lead: str
    """The token before the first turn, as it is spelt; empty in most."""
    prefill: str
    """What the template writes at the head of the assistant's turn: empty, or `<think>` and a newline (QwQ)."""


def detect_layout(tokenizer: PreTrainedTokenizerFast, *, name: str) -> ChatLayout:
    """The layout of the tokenizer's chat template.

    Raises:
        ConfigError: there is no template, it is no ChatML, or it opens the assistant's turn in an unknown way.
    """
    rendered = _render(tokenizer, [_SYSTEM, _USER], name)
    expected = _turn(_SYSTEM) + _turn(_USER) + _OPENING
    lead, found, rest = rendered.partition(expected)
    if not found or lead not in {"", tokenizer.bos_token}:
        raise _not_chatml(name, got=rendered, expected=expected)
    later = _render(tokenizer, [_SYSTEM, _USER, *_LATER], name)
    if not later.endswith(_turn(_LATER[-1]) + _OPENING + rest):
        raise _not_chatml(name, got=later, expected=f"… {_turn(_LATER[-1])}{_OPENING}{rest}")
    if rest and rest.rstrip() != "<think>":
        raise _not_chatml(name, got=rendered, expected=f"{expected} with nothing or a <think> behind it")
    return ChatLayout(lead, rest)


def _turn(message: dict[str, str]) -> str:
    return f"{TURN_START}{message['role']}\n{message['content']}{TURN_END}\n"


def _render(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], name: str) -> str:
    """The messages as the template renders them, with the assistant's turn opened."""
    try:
        # Templates with a switch for thoughts are asked to let the model think; others do not read it.
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    except (TemplateError, ValueError) as error:
        raise ConfigError(
            f"the chat template of {name} cannot be used: {str(error).splitlines()[0]}; expected a ChatML template, as "
            "Qwen2.5, Qwen3 and QwQ have it"
        ) from None
    assert isinstance(text, str)
    return text


def _not_chatml(name: str, *, got: str, expected: str) -> ConfigError:
    return ConfigError(
        f"the chat template of {name} is no ChatML: got {got!r}, expected {expected!r}; take a model of the ChatML family "
        "(Qwen2.5, Qwen3, QwQ) or give its tokenizer such a template"
    )
