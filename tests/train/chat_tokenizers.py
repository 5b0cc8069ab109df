"""Tokenizers of the ChatML family, built here: the layouts of Qwen2.5, Qwen3 and QwQ, and awkward ones.

The chat templates have the layout of the originals in our own words; `DROPPED` shows what they do to thoughts.
"""

from collections.abc import Iterable
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from webdancer.train.tokenizer import build_tokenizer as build_tiny

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>")
THINK, CALL, ANSWER = ("<think>", "</think>"), ("<tool_call>", "</tool_call>"), ("<answer>", "</answer>")
RESPONSE = ("<tool_response>", "</tool_response>")
TURN_TAGS = (*THINK, *CALL, *ANSWER)

_TEXT = (
    "The lighthouse of Velm was built in 1904 by an architect who studied at the university of Orsk.",
    '{"name": "search", "arguments": {"query": ["who built the lighthouse of Velm"]}}',
    "system user assistant\n\nEvidence in page: think, call a tool, answer.\n  Summary: it wasn't they'll say.",
)
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_TURNS = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
PLAIN_TEMPLATE = (
    "{% for m in messages %}" + _TURNS + "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
QWEN25_TEMPLATE = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}"
    + PLAIN_TEMPLATE
)
_DROPPING = (
    "{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'assistant' and loop.index0 < ns.last %}"
    "{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}" + _TURNS + "{% endif %}{% endfor %}"
)  # fmt: skip
QWEN3_TEMPLATE = _DROPPING + (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
QWQ_TEMPLATE = _DROPPING + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"


def train_bpe(texts: Iterable[str] = _TEXT, *, vocab_size: int = 420, split: str | None = _QWEN_SPLIT) -> Tokenizer:
    """A byte-level BPE without added tokens. Without `split` its merges run over whole texts."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = [byte_level] if split is None else [pre_tokenizers.Split(Regex(split), "isolated"), byte_level]
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wrap(
    backend: Tokenizer,
    *,
    plain: Iterable[str] = (),
    special: Iterable[str] = (),
    controls: Iterable[str] = CONTROLS,
    template: str | None = PLAIN_TEMPLATE,
    **names: str,
) -> PreTrainedTokenizerFast:
    """The tokenizer with its controls, with tags as plain and as special added tokens, and a chat template."""
    for token in (*controls, *special):
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
    for token in plain:
        backend.add_tokens([AddedToken(token, special=False, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=True, **names)
    tokenizer.chat_template = template
    return tokenizer


def _qwen25() -> PreTrainedTokenizerFast:
    return wrap(train_bpe(), plain=CALL, template=QWEN25_TEMPLATE, pad_token="<|endoftext|>", eos_token="<|im_end|>")


def _qwen3() -> PreTrainedTokenizerFast:
    tags = (*CALL, *RESPONSE, *THINK)
    return wrap(train_bpe(), plain=tags, template=QWEN3_TEMPLATE, pad_token="<|endoftext|>", eos_token="<|im_end|>")


def _qwq() -> PreTrainedTokenizerFast:
    tags = (*CALL, *RESPONSE, *THINK)
    return wrap(train_bpe(), plain=tags, template=QWQ_TEMPLATE, pad_token="<|endoftext|>", eos_token="<|im_end|>")


def _special() -> PreTrainedTokenizerFast:
    """All tags as special tokens."""
    return wrap(train_bpe(), special=(*TURN_TAGS, *RESPONSE), pad_token="<|endoftext|>")


def _bare() -> PreTrainedTokenizerFast:
    """No tag is a token."""
    return wrap(train_bpe())


def _led() -> PreTrainedTokenizerFast:
    """A token stands before the first turn, and the padding is an ordinary character that is also an added token."""
    return wrap(
        train_bpe(),
        controls=("<s>", *CONTROLS),
        plain=TURN_TAGS,
        special=("!",),
        template="{{ bos_token }}" + PLAIN_TEMPLATE,
        bos_token="<s>",
        pad_token="!",
    )


def _merged(*, added: bool) -> PreTrainedTokenizerFast:
    """Merges make the tags and the markers, as they make any word; `added` names them as added tokens as well."""
    tags = (*CONTROLS, *TURN_TAGS, *RESPONSE)
    backend = train_bpe([tag for tag in tags for _ in range(8)], vocab_size=600, split=None)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    backend.model.ignore_merges = True
    assert all(backend.token_to_id(tag) is not None for tag in tags)
    return wrap(backend, controls=CONTROLS if added else (), plain=(*TURN_TAGS, *RESPONSE) if added else ())


def _tiny() -> PreTrainedTokenizerFast:
    """As the tiny base model's is made."""
    return build_tiny(_TEXT, vocab_size=400)


BUILDERS = {
    "qwen25": _qwen25,
    "qwen3": _qwen3,
    "qwq": _qwq,
    "special": _special,
    "tiny": _tiny,
    "bare": _bare,
    "led": _led,
    "merged": lambda: _merged(added=True),
    "merged_only": lambda: _merged(added=False),
}


@cache
def build_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of that name in `BUILDERS`."""
    return BUILDERS[name]()
