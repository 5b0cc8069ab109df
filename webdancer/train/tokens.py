"""Episodes as token ids and a mask, token for token what the policy read and wrote (paper, section 3.3).

Rollouts and SFT data are laid out by the same code. With Qwen3's layout (`^` marks what is trained):

    <|im_start|>system⏎…<|im_end|>⏎<|im_start|>user⏎QUESTION<|im_end|>⏎<|im_start|>assistant⏎
    <think>⏎THOUGHT⏎</think>⏎<tool_call>⏎CALL⏎</tool_call><|im_end|>
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    ⏎<|im_start|>user⏎<tool_response>⏎OBSERVATION⏎</tool_response><|im_end|>⏎<|im_start|>assistant⏎
    <think>⏎THOUGHT⏎</think>⏎<answer>⏎ANSWER⏎</answer><|im_end|>
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

Not trained: the newline behind an end-of-turn, a `<think>⏎` that the layout opens for the policy (QwQ's), and an
end-of-turn that had to be set behind a turn that was cut. Control tokens and tags come from here alone; all text is encoded
without them (`plain_text`), piece by piece between them, so that no id depends on what follows. Tags that the tokenizer has no
token for are ordinary text.

Departure from the templates of reasoning models: no thought of an earlier turn is ever dropped.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import JsonValue
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from webdancer.agent.transcript import replay
from webdancer.errors import ConfigError
from webdancer.llm.protocol import Message
from webdancer.records import Trajectory
from webdancer.train.chat_layout import TURN_END, TURN_START, detect_layout
from webdancer.train.plain_text import PlainText, reserved_tokens

_TEXT_END = "<|endoftext|>"
_TURN_TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<answer>", "</answer>")
_RESPONSE, _RESPONSE_END = "<tool_response>", "</tool_response>"


class ChatTokens:
    """A tokenizer of the ChatML family, used so that only this class can write control tokens.

    Attributes:
        tokenizer: the tokenizer itself, to be saved beside a checkpoint.
        end_id: `<|im_end|>`.
        stop_ids: a sampled token among these ends the turn: the end-of-turn, the start of a turn, the end of text, and
            `<tool_response>` where it is a token.
        pad_id: fills up batches.
        vocab_size: one more than the largest id.
        prefill: what the layout writes at the head of the assistant's turn; `prompt` and `next_turn` end with it, so a
            sampled turn's whole text is `prefill + decode(ids)`.

    Raises:
        ConfigError: the chat template is no ChatML, a turn marker is no token, or the tokenizer is no byte-level BPE.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        name = str(tokenizer.name_or_path or "this tokenizer")
        backend = tokenizer.backend_tokenizer
        self.tokenizer = tokenizer
        layout = detect_layout(tokenizer, name=name)
        spellings = (TURN_START, TURN_END, _TEXT_END, *_TURN_TAGS, _RESPONSE, _RESPONSE_END)
        reserved = reserved_tokens(backend, spellings)
        self._ids = {spelling: id_ for id_, spelling in reserved.items()}
        missing = [marker for marker in (TURN_START, TURN_END) if marker not in self._ids]
        if missing:
            raise ConfigError(
                f"the tokenizer of {name} has no token {' and '.join(missing)}; expected both turn markers"
            )
        self._plain = PlainText(backend, reserved, name=name)
        tags = [re.escape(tag) for tag in _TURN_TAGS if tag in self._ids]
        self._turn_tag = re.compile(f"({'|'.join(tags) or '(?!)'})")

        self.end_id = self._ids[TURN_END]
        stops = (TURN_END, TURN_START, _TEXT_END, _RESPONSE)
        self.stop_ids = frozenset(self._ids[stop] for stop in stops if stop in self._ids)
        pad_id = tokenizer.pad_token_id
        self.pad_id: int = pad_id if isinstance(pad_id, int) else self._ids.get(_TEXT_END, self.end_id)
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1

        self.prefill = layout.prefill
        self._lead = [self._ids[layout.lead]] if layout.lead else []
        self._newline = self.text("\n")
        self._prefill_ids = self._tagged(layout.prefill)
        self._opening = [self._ids[TURN_START], *self.text("assistant\n")]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The tokenizer of a checkpoint.

        Raises:
            ConfigError: there is none at `path`, or it is of another family.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load a tokenizer from {path}: {str(error).splitlines()[0]}") from None
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ConfigError(
                f"the tokenizer of {path} is a {type(tokenizer).__name__}; expected one with a tokenizer.json"
            )
        return cls(tokenizer)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A conversation and the opening of the assistant's next turn, with what the layout writes at its head.

        Turns of the assistant among `messages` are encoded as by `turn`. A user's turn is plain text, unless it answers
        one of the assistant's and is a tool response.
        """
        ids = list(self._lead)
        for i, message in enumerate(messages):
            if message.role == "assistant":
                ids += [*self._open(message.content), *self._newline]
            else:
                ids += self._put(message, may_respond=i > 0 and messages[i - 1].role == "assistant")
        return [*ids, *self._opening, *self._prefill_ids]

    def next_turn(self, text: str, *, ended: bool) -> list[int]:
        """What stands between a turn of the assistant and its next: the user's turn `text`, and what is around it.

        Args:
            text: a tool response (its outer tags become tag tokens) or anything else (plain text).
            ended: the turn before ended with `end_id`; if not, it is set here.
        """
        end = [] if ended else [self.end_id]
        user = self._put(Message("user", text), may_respond=True)
        return [*end, *self._newline, *user, *self._opening, *self._prefill_ids]

    def turn(self, text: str) -> list[int]:
        """A turn of the assistant as the model would write it: its six tags as tokens, and its end.

        `text` is encoded as it stands. Where the layout has a `prefill`, give what comes after it.
        """
        return [*self._tagged(text), self.end_id]

    def text(self, text: str) -> list[int]:
        """Plain text: never a control token or a tag token, whatever it holds.

        Raises:
            UnicodeEncodeError: `text` holds a lone surrogate.
        """
        return self._plain.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The exact text of `ids`, control tokens as they are spelt; a character that was cut shows as U+FFFD."""
        return self._plain.decode(ids)

    def without_prefill(self, ids: Sequence[int]) -> list[int]:
        """`ids` that end with the opening of the assistant's turn, without what the layout writes at its head."""
        return list(ids[: len(ids) - len(self._prefill_ids)])

    def _put(self, message: Message, *, may_respond: bool) -> list[int]:
        """A system's or user's turn with its markers and the newline behind it."""
        head = [self._ids[TURN_START], *self.text(f"{message.role}\n")]
        body = self._response(message.content) if may_respond else self.text(message.content)
        return [*head, *body, self.end_id, *self._newline]

    def _open(self, text: str) -> list[int]:
        """A whole turn of the assistant with its markers, as it was read and written when it was made."""
        if text.startswith(self.prefill):
            return [*self._opening, *self._prefill_ids, *self.turn(text.removeprefix(self.prefill))]
        return [*self._opening, *self.turn(text)]

    def _tagged(self, text: str) -> list[int]:
        """The text of a turn: its tags as their tokens where there are such, all between them plain."""
        ids: list[int] = []
        for i, piece in enumerate(self._turn_tag.split(text)):
            ids += [self._ids[piece]] if i % 2 else self.text(piece)
        return ids

    def _response(self, text: str) -> list[int]:
        """A user's turn; the outer tags of a tool response become tokens, what is inside or behind them never."""
        end = text.rfind(f"\n{_RESPONSE_END}") + 1
        behind = text[end + len(_RESPONSE_END) :]
        # Behind an observation the demand for an answer may stand, parted from it by an empty line.
        is_response = text.startswith(f"{_RESPONSE}\n") and end > 0 and (not behind or behind.startswith("\n\n"))
        if not is_response or _RESPONSE not in self._ids or _RESPONSE_END not in self._ids:
            return self.text(text)
        inside = self.text(text[len(_RESPONSE) : end])
        return [self._ids[_RESPONSE], *inside, self._ids[_RESPONSE_END], *self.text(behind)]


class TokenSequence(NamedTuple):
    """One episode for the trainer. Both lists have one length L."""

    token_ids: list[int]
    mask: list[bool]
    """True where the policy wrote the token: these are trained."""


class EpisodeTokens:
    """The tokens of one episode as it grows. What stands in it is never encoded again."""

    def __init__(self, tokens: ChatTokens, messages: Sequence[Message]) -> None:
        """`messages` are all before the policy's first turn: the system's and the question."""
        self._tokens = tokens
        self.token_ids = tokens.prompt(messages)
        self.mask = [False] * len(self.token_ids)

    def add_sampled(self, ids: Sequence[int]) -> None:
        """Add a turn as it was sampled, its stop token too if one ended it."""
        self.token_ids += ids
        self.mask += [True] * len(ids)

    def add_written(self, text: str, *, cut: bool = False) -> None:
        """Add a turn that is given as text; one that was `cut` has no end of its own."""
        prefill = self._tokens.prefill
        if not text.startswith(prefill):
            # Its writer was not given the layout's opening of a thought, so it shall not stand there.
            self.token_ids = self._tokens.without_prefill(self.token_ids)
            self.mask = self.mask[: len(self.token_ids)]
        ids = self._tokens.turn(text.removeprefix(prefill))
        self.add_sampled(ids[:-1] if cut else ids)

    def add_user(self, text: str) -> None:
        """Add what the policy is told after its turn, and the opening of its next."""
        ids = self.after_user(text)
        self.mask += [False] * (len(ids) - len(self.token_ids))
        self.token_ids = ids

    def after_user(self, text: str) -> list[int]:
        """The ids as `add_user` would leave them; nothing is added."""
        ended = self.token_ids[-1] == self._tokens.end_id
        return [*self.token_ids, *self._tokens.next_turn(text, ended=ended)]

    def sequence(self) -> TokenSequence:
        """The episode up to the policy's last token; the prompt alone where it wrote none."""
        num_used = max((i for i, trained in enumerate(self.mask, 1) if trained), default=len(self.mask))
        return TokenSequence(self.token_ids[:num_used], self.mask[:num_used])


def encode_trajectory(
    tokens: ChatTokens,
    trajectory: Trajectory,
    schemas: Sequence[dict[str, JsonValue]],
    *,
    prompt: str,
) -> TokenSequence:
    """A finished episode as training reads it; thoughts of short and long CoT stand in the same place.

    Args:
        schemas: the tools, for the system prompt.
        prompt: the name of the system prompt.

    Raises:
        ValueError: a step in the middle has no observation.
    """
    messages = replay(trajectory, schemas, prompt=prompt).messages
    turns, answers = messages[2::2], messages[3::2]
    if {message.role for message in turns} - {"assistant"} or {message.role for message in answers} - {"user"}:
        raise ValueError(f"trajectory {trajectory.id}: a step before the last has no observation")
    episode = EpisodeTokens(tokens, messages[:2])
    for i, (step, turn) in enumerate(zip(trajectory.steps, turns, strict=True)):
        if i > 0:
            episode.add_user(answers[i - 1].content)
        episode.add_written(turn.content, cut=step.cut)
    return episode.sequence()
