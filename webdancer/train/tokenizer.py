"""Builds the tiny base model's tokenizer: byte-level BPE with the tags of the turn format as tokens of their own.

Words are split so that what an agent writes again and again (the frame of a call, the opening of an address) can become one
token, while names always come apart in the same way, whatever stands around them: that is what copying needs. Digits stand alone.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAG_TOKENS = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<answer>", "</answer>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPLIT = (
    r'\{"name": "\w+", "arguments": \{"\w+": \[?"'  # the frame of a call
    r'|"\]?\}\}|", "goal": "|", "'
    r"|\n\d{1,2}\. \[|(?:\]\()?https?://[a-z.]+/(?:[a-z]+/)?|: what do you know\?"  # of a result
    r"| ?\p{Ll}[\p{L}\p{M}]*+(?!-)(?: (?=[\p{Lu}\p{N}]))?"  # a small word takes the space before it, or that before a name
    r"|\p{L}[\p{L}\p{M}]*+"  # a name's word: never a space
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+?(?: (?=[\p{Lu}\p{N}])|(?=[\s\p{L}\p{N}]|$))"
    r"|\s"
)


def build_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on `texts`.

    Args:
        vocab_size: all tokens, control and tag tokens among them; at least 256 more than those.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
    added += [AddedToken(token, special=False, normalized=False) for token in TAG_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAG_TOKENS),
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(added)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
