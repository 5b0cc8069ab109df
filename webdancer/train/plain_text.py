"""Text to token ids and back, exactly, without a way for the text to become a control token.

A tokenizer's added tokens are searched in any text that it is given, whether they are marked as special or not (turning
"special" off, or `split_special_tokens`, leaves the tags of Qwen's tokenizers in force). So plain text is encoded by a copy
of the tokenizer that has none: no added tokens, and neither they nor any other reserved string in the vocabulary or among
what its merges make. The copy also drops what would change the text (normalisers, a space set before it, templates).

Decoding is done here on bytes, since a tokenizer's own `decode` may tidy spaces up.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from webdancer.errors import ConfigError

_CONTROL = re.compile(r"<\|[\w.-]+\|>", re.ASCII)
_PROBE = " \n\n\tTwo  words,don't:\r\n<|x|> 1234 é e\u0301 ＡＢ \u200b\ufeff中文 \U0001f9ea\x00\u3000"


def byte_characters() -> dict[str, int]:
    """The character that stands for each byte in the vocabulary of a byte-level tokenizer, as GPT-2 introduced it.

    Printable characters of Latin-1 stand for themselves; the other bytes take the characters from 256 on, in their order.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = byte_characters()
_UNKNOWN = b"\xff"
"""Stands for ids beyond the tokenizer's (a model's embedding may have more rows): it is never part of UTF-8."""


class PlainText:
    """A byte-level BPE tokenizer's plain side.

    Args:
        backend: the whole tokenizer.
        reserved: id → spelling of all tokens that no text may become.

    Raises:
        ConfigError: the tokenizer is no byte-level BPE, or does not give text back as it was.
    """

    def __init__(self, backend: Tokenizer, reserved: Mapping[int, str], *, name: str) -> None:
        self._backend = backend
        self._spelt = {id_: text.encode("utf-8") for id_, text in reserved.items()}
        self._plain = _plain_copy(backend, reserved, name)
        probe = self.decode(self.encode(_PROBE))
        if probe != _PROBE:
            raise ConfigError(f"the tokenizer of {name} does not keep text: got {probe!r}, expected {_PROBE!r}")

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, none of them reserved.

        Raises:
            UnicodeEncodeError: `text` holds a lone surrogate.
        """
        try:
            return self._plain.encode(text, add_special_tokens=False).ids
        except TypeError:
            text.encode("utf-8")
            raise

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, reserved tokens as they are spelt; bytes that are no UTF-8 and unknown ids as U+FFFD."""
        return b"".join(map(self._bytes_of, ids)).decode("utf-8", "replace")

    def _bytes_of(self, id_: int) -> bytes:
        found = self._spelt.get(id_)
        if found is None:
            token = self._backend.id_to_token(id_)
            found = _UNKNOWN if token is None else _token_bytes(token)
            self._spelt[id_] = found
        return found


def _token_bytes(token: str) -> bytes:
    """What an entry of the vocabulary stands for; one that is not written in byte characters stands for itself."""
    if all(character in _BYTES for character in token):
        return bytes(_BYTES[character] for character in token)
    return token.encode("utf-8")


def _plain_copy(backend: Tokenizer, reserved: Mapping[int, str], name: str) -> Tokenizer:
    """The tokenizer without its added tokens and without the reserved ids in its vocabulary."""
    parts: dict[str, Any] = json.loads(backend.to_str())
    model = parts["model"]
    steps = list(_pre_tokenizer_steps(parts["pre_tokenizer"]))
    missing = [c for c in _BYTES if c not in model.get("vocab", ())] if model["type"] == "BPE" else []
    if model["type"] != "BPE" or missing or all(step["type"] != "ByteLevel" for step in steps):
        kinds = ", ".join(step["type"] for step in steps) or "nothing"
        raise ConfigError(
            f"the tokenizer of {name} is no byte-level BPE: got the model {model['type']} behind {kinds}, "
            f"{len(missing)} bytes without a token; expected BPE behind ByteLevel with all 256 bytes"
        )
    for step in steps:
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = False
    parts.update(added_tokens=[], normalizer=None, post_processor=None, truncation=None, padding=None)
    model.update(dropout=None, unk_token=None)
    _drop_from_model(model, reserved)
    return Tokenizer.from_str(json.dumps(parts))


def _pre_tokenizer_steps(part: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
    """The steps of a pre-tokenizer, those within sequences too."""
    if part is None:
        return
    if part["type"] == "Sequence":
        for inner in part["pretokenizers"]:
            yield from _pre_tokenizer_steps(inner)
    else:
        yield part


def _drop_from_model(model: dict[str, Any], reserved: Mapping[int, str]) -> None:
    """Take the reserved ids out of a BPE's vocabulary, with every merge that makes or uses one of them."""
    dropped = {token for token, id_ in model["vocab"].items() if id_ in reserved}
    if dropped:
        model["vocab"] = {token: id_ for token, id_ in model["vocab"].items() if token not in dropped}
        model["merges"] = [
            [left, right] for left, right in model["merges"] if dropped.isdisjoint((left, right, left + right))
        ]


def reserved_tokens(backend: Tokenizer, spellings: Iterable[str]) -> dict[int, str]:
    """Id → spelling of all added tokens, of those `spellings` that are tokens of any kind, and of controls made by merges.

    A single byte stays plain where a tokenizer has named it as an added token (some name `!` as the padding).
    """
    added = {id_: token.content for id_, token in backend.get_added_tokens_decoder().items()}
    wanted = set(spellings)
    vocabulary = backend.get_vocab(with_added_tokens=False)
    found = added | {id_: token for token, id_ in vocabulary.items() if token in wanted or _CONTROL.fullmatch(token)}
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    return {id_: spelling for id_, spelling in found.items() if spelling not in alphabet}
