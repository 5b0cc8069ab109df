"""A trained checkpoint as a chat model for any client: a request brings its whole conversation, and all share one engine.

Unlike an episode of our own loop, which keeps the ids that it sampled, a conversation comes back here as text, and its
earlier turns are encoded again. Requests under way at once are decoded in one batch by the engine.
"""

import itertools
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from webdancer.errors import BadRequestError
from webdancer.llm.protocol import ChatReply, Message, SampledToken, Sampling
from webdancer.records import Usage

if TYPE_CHECKING:
    from webdancer.train.generation import TrainableEngine
    from webdancer.train.tokens import ChatTokens

_TURN_ENDS = ("<|im_end|>",)
"""What ends a chat's turn as it should; it is left out. Any other stop stays in the text, where an agent's loop objects to it."""
_TEXT_ENDS = (*_TURN_ENDS, "<|endoftext|>")


class ServedCheckpoint:
    """A running engine behind the chat protocol and the protocol of bare completions."""

    def __init__(self, tokens: "ChatTokens", engine: "TrainableEngine", *, name: str) -> None:
        self.name = name
        self._tokens, self._engine = tokens, engine
        self._numbers = itertools.count()

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """The assistant's next turn.

        Raises:
            ContextFullError: the conversation leaves no room for a turn.
        """
        return await self._generate(
            self._tokens.prompt(messages), sampling, ends=_TURN_ENDS, given=self._tokens.prefill
        )

    async def complete(self, prompt: str | Sequence[int], sampling: Sampling) -> ChatReply:
        """What follows a text (in which control tokens are plain text) or token ids.

        Raises:
            ContextFullError: the prompt leaves no room.
            BadRequestError: it is empty, or an id is not in the vocabulary.
        """
        if isinstance(prompt, str):
            return await self._generate(self._tokens.text(prompt), sampling, ends=_TEXT_ENDS)
        unknown = next((id_ for id_ in prompt if not 0 <= id_ < self._tokens.vocab_size), None)
        if unknown is not None:
            raise BadRequestError(
                f"got the token id {unknown}, expected ids of 0 or more, below {self._tokens.vocab_size}"
            )
        return await self._generate(list(prompt), sampling, ends=_TEXT_ENDS)

    async def _generate(self, ids: list[int], sampling: Sampling, *, ends: Sequence[str], given: str = "") -> ChatReply:
        from webdancer.train.generation import TokenSampling

        if not ids:
            raise BadRequestError("got an empty prompt, expected at least one token")
        session = f"request-{next(self._numbers)}"
        wanted = TokenSampling(
            temperature=1.0 if sampling.temperature is None else sampling.temperature,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            max_tokens=sampling.max_tokens or self._engine.max_context,
            seed=secrets.randbits(31) if sampling.seed is None else sampling.seed % (1 << 31),
        )
        try:
            generation = await self._engine.generate(ids, wanted, session=session)
        finally:
            self._engine.release(session)
        sampled, logprobs, finish = generation
        usage = Usage(prompt_tokens=len(ids), completion_tokens=len(sampled), llm_calls=1)
        if sampled and self._tokens.decode(sampled[-1:]) in ends:
            sampled, logprobs = sampled[:-1], logprobs[:-1]
        tokens = [SampledToken(*token) for token in zip(sampled, self._texts(sampled), logprobs, strict=True)]
        reply = ChatReply(given + "".join(token.text for token in tokens), None, finish, usage, tuple(tokens))
        return cut_tokens_at_stop(reply, sampling.stop, given=given)

    def _texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token. A character that is spread over several tokens belongs to the last of them.

        ids     [ Ve ] [ lm ] [ E6 ] [ A1 ] [ A5 ]
        texts    "Ve"   "lm"    ""     ""    "桥"
        """
        texts, start = [], 0
        for end in range(1, len(ids) + 1):
            text = self._tokens.decode(ids[start:end])
            if text.endswith("\ufffd") and end < len(ids):
                texts.append("")
            else:
                texts.append(text)
                start = end
        return texts


def cut_tokens_at_stop(reply: ChatReply, stop: Sequence[str], *, given: str) -> ChatReply:
    """Cut the content before the first stop string behind `given`; the token in which it begins keeps what stands before it."""
    found = [at for text in stop if (at := reply.content.find(text, len(given))) >= 0]
    if not found:
        return reply
    content = reply.content[: min(found)]
    kept, length = [], len(given)
    for token in reply.tokens or ():
        if length >= len(content):
            break
        kept.append(token._replace(text=token.text[: len(content) - length]))
        length += len(token.text)
    usage = reply.usage.model_copy(update={"completion_tokens": len(kept)})
    return ChatReply(content, reply.reasoning, "stop", usage, tuple(kept))
