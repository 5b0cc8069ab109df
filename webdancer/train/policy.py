"""The policy as a chat model: text outside, token ids inside, and what was sampled is kept as it was sampled.

An episode of the agent loop is one session of the engine. Each call brings the whole transcript as messages; of these only
what came after the policy's last turn is encoded. The policy's own turns stay the ids that it sampled: they are never made
from text again, so what is trained is what was read and written, token for token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from transformers import PreTrainedModel

from webdancer.config import PolicySettings
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import Usage
from webdancer.synth.seeds import derive_seed
from webdancer.train.engine import TorchEngine
from webdancer.train.generation import Engine, TokenSampling, TrainableEngine
from webdancer.train.model import device_of, dtype_of, open_weights
from webdancer.train.sampler import turn_seed
from webdancer.train.tokens import ChatTokens, EpisodeTokens

_ALL_THAT_FIT = 1 << 30


class SampledSequence(NamedTuple):
    """All tokens of an episode up to the policy's last; three lists of one length."""

    token_ids: list[int]
    mask: list[bool]
    """True where the policy sampled the token."""
    logprobs: list[float]
    """Of the sampled tokens, under the distribution sampled from; 0.0 elsewhere."""


class PolicyEpisode:
    """The policy in one episode: a `ChatModel`. Close it when the episode is over."""

    def __init__(self, engine: Engine, tokens: ChatTokens, *, key: str, name: str) -> None:
        self.name = name
        self._engine, self._tokens, self._key = engine, tokens, key
        self._seen: tuple[Message, ...] = ()  # what the policy had read when it wrote its last turn
        self._num_turns = 0
        self._episode: EpisodeTokens | None = None
        self._logprobs: list[float] = []
        engine.open(key)

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """The policy's next turn. A turn that does not come to its end (an error, a cancellation) leaves nothing behind.

        `sampling.stop` cuts the reply's text, not the sampled tokens. Temperature and top-p are 1 where not given, the seed
        follows from the episode's name.

        Raises:
            ContextFullError: there is no room for one more token.
            ValueError: `messages` do not continue those of the turn before.
        """
        user = self._new_user_text(messages)
        if user is None:
            self._episode = EpisodeTokens(self._tokens, messages)
        assert self._episode is not None
        ids = list(self._episode.token_ids) if user is None else self._episode.after_user(user)
        generation = await self._engine.generate(ids, self._turn_sampling(sampling), session=self._key)
        if user is not None:
            self._episode.add_user(user)
        self._episode.add_sampled(generation.token_ids)
        self._logprobs += [0.0] * (len(ids) - len(self._logprobs)) + generation.logprobs
        self._seen, self._num_turns = tuple(messages), self._num_turns + 1
        num_sampled = len(generation.token_ids)
        usage = Usage(prompt_tokens=len(ids), completion_tokens=num_sampled, llm_calls=1)
        content, finish = self._text(generation.token_ids), generation.finish
        cut = _cut_at_stop(content, sampling.stop, given=len(self._tokens.prefill))
        return ChatReply(cut, None, finish if cut == content else "stop", usage)

    def sequence(self) -> SampledSequence:
        """All tokens so far, up to the policy's last; the prompt alone where it has sampled none."""
        if self._episode is None:
            return SampledSequence([], [], [])
        token_ids, mask = self._episode.sequence()
        logprobs = self._logprobs + [0.0] * (len(token_ids) - len(self._logprobs))
        return SampledSequence(token_ids, mask, logprobs)

    def close(self) -> None:
        """Free what the engine holds of the episode."""
        self._engine.release(self._key)

    def _new_user_text(self, messages: Sequence[Message]) -> str | None:
        """What the user said behind the policy's last turn; None before its first."""
        if not self._num_turns:
            return None
        num_seen = len(self._seen)
        if tuple(messages[:num_seen]) != self._seen or [m.role for m in messages[num_seen:]] != ["assistant", "user"]:
            roles = ", ".join(message.role for message in messages[num_seen:])
            raise ValueError(
                f"episode {self._key!r}: got {len(messages)} messages ({roles} behind the {num_seen} of the last call), "
                "expected the same ones, the assistant's turn and one user message"
            )
        return messages[-1].content

    def _turn_sampling(self, sampling: Sampling) -> TokenSampling:
        seed = derive_seed("episode", self._key) if sampling.seed is None else sampling.seed
        return TokenSampling(
            temperature=1.0 if sampling.temperature is None else sampling.temperature,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            max_tokens=_ALL_THAT_FIT if sampling.max_tokens is None else sampling.max_tokens,
            seed=turn_seed(seed, self._num_turns),
        )

    def _text(self, ids: list[int]) -> str:
        """The turn's text. Its end-of-turn is left out; any other stop token stays, for the parser to object to."""
        shown = ids[:-1] if ids[-1] == self._tokens.end_id else ids
        return self._tokens.prefill + self._tokens.decode(shown)


class EnginePolicy:
    """Episodes over an engine that is already there."""

    def __init__(self, engine: Engine, tokens: ChatTokens, *, name: str) -> None:
        self.tokens, self.name = tokens, name
        self._engine = engine

    def episode(self, key: str) -> PolicyEpisode:
        """A new episode; `key` names it in the engine and may not be that of another open one."""
        return PolicyEpisode(self._engine, self.tokens, key=key, name=self.name)


def new_engine(
    model: PreTrainedModel,
    tokens: ChatTokens,
    settings: PolicySettings,
    *,
    device: torch.device,
    deterministic: bool = False,
) -> TrainableEngine:
    """An engine for a model, as the settings have it; the one place where the kind of engine is chosen.

    Raises:
        ConfigError: the model's architecture is not supported, or the device has no room for the cache.
    """
    return TorchEngine(
        model,
        stop_ids=tokens.stop_ids,
        max_context=settings.max_context,
        max_batch=settings.max_batch,
        dtype=dtype_of(settings),
        device=device,
        deterministic=deterministic,
    )


class Policy(EnginePolicy):
    """A checkpoint (a Hugging Face folder) with its own engine, which runs while the context is entered.

    Raises:
        ConfigError: there is no checkpoint at `path`, its architecture or tokenizer is not supported, they do not fit each
            other, or the device is missing or has no room for the cache.
    """

    engine: TrainableEngine

    def __init__(self, path: str | Path, settings: PolicySettings) -> None:
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        device, tokens = device_of(settings), ChatTokens.load(path)
        model = open_weights(Path(path), tokens.tokenizer, dtype=dtype_of(settings))
        self.engine = new_engine(model, tokens, settings, device=device)
        super().__init__(self.engine, tokens, name=str(path))

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.engine.__aexit__(*exception)


def _cut_at_stop(text: str, stop: Sequence[str], *, given: int) -> str:
    """The text up to the first stop string behind its first `given` characters."""
    found = [at for string in stop if (at := text.find(string, given)) >= 0]
    return text[: min(found)] if found else text
