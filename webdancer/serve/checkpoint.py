"""A trained checkpoint as a chat model for any client: a request brings its whole conversation, and all share one engine.

Unlike an episode of our own loop, which keeps the ids that it sampled, a conversation comes back here as text, and its
earlier turns are encoded again. Requests under way at once are decoded in one batch by the engine.
"""

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from webdancer.errors import BadRequestError
from webdancer.llm.protocol import ChatReply, Message, ReplyParts, ReplyPiece, SampledToken, Sampling
from webdancer.records import Usage
from webdancer.serve.token_text import TokenText

if TYPE_CHECKING:
    from webdancer.train.generation import TokenSampling, TrainableEngine
    from webdancer.train.tokens import ChatTokens

_TURN_ENDS = ("<|im_end|>",)
"""What ends a chat's turn as it should; it is left out. Any other stop stays in the text, where an agent's loop objects to it."""
_TEXT_ENDS = (*_TURN_ENDS, "<|endoftext|>")


class ServedCheckpoint:
    """A running engine behind the protocols of chat and of bare completions, whole or while they are under way."""

    def __init__(self, tokens: "ChatTokens", engine: "TrainableEngine", *, name: str) -> None:
        self.name = name
        self._tokens, self._engine = tokens, engine
        self._numbers = itertools.count()

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """The assistant's next turn.

        Raises:
            ContextFullError: the conversation leaves no room for a turn.
        """
        return await _whole(self.stream_chat(messages, sampling))

    async def complete(self, prompt: str | Sequence[int], sampling: Sampling) -> ChatReply:
        """What follows a text (in which control tokens are plain text) or token ids.

        Raises:
            ContextFullError: the prompt leaves no room.
            BadRequestError: it is empty, or an id is not in the vocabulary.
        """
        return await _whole(self.stream_complete(prompt, sampling))

    def stream_chat(self, messages: Sequence[Message], sampling: Sampling) -> ReplyParts:
        """`chat`, piece by piece."""
        return self._stream(self._tokens.prompt(messages), sampling, ends=_TURN_ENDS, given=self._tokens.prefill)

    def stream_complete(self, prompt: str | Sequence[int], sampling: Sampling) -> ReplyParts:
        """`complete`, piece by piece."""
        ids = self._tokens.text(prompt) if isinstance(prompt, str) else list(prompt)
        return self._stream(ids, sampling, ends=_TEXT_ENDS)

    async def _stream(self, ids: list[int], sampling: Sampling, *, ends: Sequence[str], given: str = "") -> ReplyParts:
        """The tokens as the engine samples them. A stop string ends the turn in the engine, too."""
        self._check(ids)
        session = f"request-{next(self._numbers)}"
        steps: asyncio.Queue[tuple[Sequence[int], Sequence[float]] | None] = asyncio.Queue()
        text, num_sampled = TokenText(self._tokens.decode, sampling.stop), 0
        turn = asyncio.create_task(
            self._engine.generate(
                ids, self._settings(sampling), session=session, on_tokens=lambda *step: steps.put_nowait(step)
            )
        )
        turn.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while not text.stopped and (step := await steps.get()) is not None:
                if given and not num_sampled:
                    yield ReplyPiece(given, ())  # what the chat's layout writes at the head of the turn
                sampled, logprobs = step
                num_sampled += len(sampled)
                if self._tokens.decode(sampled[-1:]) in ends:
                    sampled, logprobs = sampled[:-1], logprobs[:-1]
                text.add(sampled, logprobs)
                for piece in _pieces(text.take()):
                    yield piece
                # The server cancels a stream whose client has left, but only while it finds it at rest: an engine that is as
                # fast as the event loop always has the next token there already.
                await asyncio.sleep(0)
            finish = "stop" if text.stopped else (await turn).finish
        finally:
            turn.cancel()
            self._engine.release(session)
        text.end()
        for piece in _pieces(text.take()):
            yield piece
        content = given + "".join(token.text for token in text.tokens)
        num_tokens = len(text.tokens) if text.stopped else num_sampled
        usage = Usage(prompt_tokens=len(ids), completion_tokens=num_tokens, llm_calls=1)
        yield ChatReply(content, None, finish, usage, tuple(text.tokens))

    def _check(self, ids: Sequence[int]) -> None:
        if not ids:
            raise BadRequestError("got an empty prompt, expected at least one token")
        unknown = next((id_ for id_ in ids if not 0 <= id_ < self._tokens.vocab_size), None)
        if unknown is not None:
            raise BadRequestError(
                f"got the token id {unknown}, expected ids of 0 or more, below {self._tokens.vocab_size}"
            )

    def _settings(self, sampling: Sampling) -> "TokenSampling":
        from webdancer.train.generation import TokenSampling

        return TokenSampling(
            temperature=1.0 if sampling.temperature is None else sampling.temperature,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            max_tokens=sampling.max_tokens or self._engine.max_context,
            seed=secrets.randbits(31) if sampling.seed is None else sampling.seed % (1 << 31),
        )


def _pieces(tokens: Sequence[SampledToken]) -> list[ReplyPiece]:
    """A piece for each token that has a text; those without go with the next one."""
    pieces: list[ReplyPiece] = []
    waiting: list[SampledToken] = []
    for token in tokens:
        waiting.append(token)
        if token.text:
            pieces.append(ReplyPiece(token.text, tuple(waiting)))
            waiting = []
    return [*pieces, ReplyPiece("", tuple(waiting))] if waiting else pieces


async def _whole(parts: ReplyParts) -> ChatReply:
    """The reply at the end of its pieces."""
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, ChatReply):
                return part
    raise AssertionError("a reply's pieces ended without the reply")
