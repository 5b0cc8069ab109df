"""The generation engine: many episodes over one model, token ids in, sampled ids with their log-probabilities out.

An episode keeps its keys and values between its turns, so that only what is new is prefilled; openings that episodes share (the
system prompt, the question of a group) are computed once and copied. Requests join the batch when they come and leave it
when they end. A pass decodes the rows that are ready and prefills pieces of the prompts that are not: up to their last token,
which is the first to be decoded.

Decoding is speculative, and exact: a row brings its last token and a draft of the next ones (`drafts.py`), a token is sampled
behind each of them, and those up to the first that differs from the draft are the turn's. Since the random number of a token
follows from the request and its place alone, they are the tokens that steps of one token would have sampled.

Model work runs in the event loop, a step at a time: between steps the tools of other episodes go on.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import Literal, Self

import numpy as np
import torch
from transformers import PreTrainedModel

from webdancer.errors import ConfigError, ContextFullError
from webdancer.train.cache_rows import CacheRows
from webdancer.train.drafts import Drafter, salt_of
from webdancer.train.generation import EngineStats, Generation, OnTokens, Request, TokenSampling, TrainableEngine
from webdancer.train.packing import Piece, Queries
from webdancer.train.qwen import Decoder
from webdancer.train.sampler import Sampled, mix, sample, uniforms

__all__ = ["EngineStats", "Generation", "TokenSampling", "TorchEngine"]

_log = logging.getLogger(__name__)
_NUM_TURNS_OF_LOOP = 4
"""Turns that the event loop gets between two steps while an episode waits for its tool: a socket's answer takes several."""


class TorchEngine(TrainableEngine):
    """The engine in this process. Use it as an async context manager; several times in a row is fine.

    Args:
        model: of the Qwen2 or Qwen3 architecture. Its weights are copied.
        stop_ids: sampling one of them ends a turn.
        max_context: tokens of an episode.
        max_batch: rows of the cache: episodes whose keys and values are held, and decoded, at once. More have to queue.
        deterministic: decode in rounds. A round starts when each open episode has asked for a turn, and ends when all these
            turns are over; its rows follow the names of the episodes. So the same wave of episodes gives the same bits.
        prefill_tokens: prompt tokens of one forward pass; on a CPU many more of them leave its cache and are slower.
        max_draft: tokens of a row that are guessed ahead, at most; 0 decodes token by token.

    Raises:
        ConfigError: the model's architecture is not supported, or the device has no room for the cache.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        stop_ids: Collection[int],
        max_context: int,
        max_batch: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        deterministic: bool = False,
        prefill_tokens: int = 512,
        max_draft: int = 6,
    ) -> None:
        self.max_context = max_context
        self.stats = EngineStats()
        self._decoder = Decoder(model, dtype=dtype, device=torch.device(device), max_positions=max_context)
        self._cache = self._decoder.new_cache(max_batch)
        self._rows = CacheRows(max_batch, max_context)
        self._drafter = Drafter(vocab_size=self._decoder.vocab_size, stop_ids=stop_ids, max_draft=max_draft)
        self._stop_ids = frozenset(stop_ids)
        self._deterministic, self._prefill_tokens = deterministic, prefill_tokens
        self._open: set[str] = set()
        self._released: set[str] = set()
        self._queue: deque[Request] = deque()
        self._running: list[Request] = []
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._wake = asyncio.Event()
        self._loop_task = asyncio.create_task(self._run(), name="generation engine")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._loop_task is not None
        self._loop_task.cancel()
        await asyncio.gather(self._loop_task, return_exceptions=True)
        self._loop_task = None
        self._fail(RuntimeError("the generation engine was closed while a turn was under way"))
        for session in list(self._open):
            self.release(session)

    def open(self, session: str) -> None:
        """Announce an episode; needed in deterministic mode, where a round waits for every open one."""
        if session in self._open and session not in self._released:
            raise ValueError(f"episode {session!r} is open already")
        self._released.discard(session)
        self._open.add(session)

    def release(self, session: str) -> None:
        """The episode is over: its row is free. A turn of it that is under way is cancelled."""
        for request in [*self._queue, *self._running]:
            if request.session == session:
                request.result.cancel()
                self._drop(request)
        if self._deterministic and self._running:
            self._released.add(session)  # when tools answer must not decide which rows are free in this round
        else:
            self._close(session)
        self._wake.set()

    async def generate(
        self, ids: Sequence[int], sampling: TokenSampling, *, session: str, on_tokens: OnTokens | None = None
    ) -> Generation:
        """Continue `ids`.

        Raises:
            ContextFullError: there is no room for one more token.
            ConfigError: the device has no room for the cache that the episodes have grown to need.
            ValueError: an empty prompt, no token wanted, a second turn of one episode at once, or (deterministic) an episode
                that was not opened.
            RuntimeError: the engine does not run, or the forward pass failed.
        """
        self._check(ids, session, sampling.max_tokens)
        request = Request(
            session=session,
            ids=list(ids),
            sampling=sampling,
            max_tokens=min(sampling.max_tokens, self.max_context - len(ids)),
            result=asyncio.get_running_loop().create_future(),
            on_tokens=on_tokens,
            key=mix(sampling.seed),
            salt=salt_of(session),
        )
        self._queue.append(request)
        self._wake.set()
        try:
            return await request.result
        finally:
            self._drop(request)

    def sync(self, model: PreTrainedModel) -> None:
        """Take over new weights. Nothing cached is valid any more; turns under way go on, computed anew from their tokens."""
        self._decoder.load(model)
        self._forget()
        self._drafter.reset()
        for request in self._running:
            request.source = None

    def _check(self, ids: Sequence[int], session: str, max_tokens: int) -> None:
        if self._loop_task is None or self._loop_task.done():
            raise RuntimeError("the generation engine does not run; use `async with engine`")
        if not ids or max_tokens < 1:
            raise ValueError(
                f"episode {session!r}: got {len(ids)} tokens and max_tokens {max_tokens}, expected 1 or more"
            )
        if len(ids) + 1 > self.max_context:
            raise ContextFullError(f"episode {session!r}: got {len(ids)} tokens, expected less than {self.max_context}")
        if any(request.session == session for request in [*self._queue, *self._running]):
            raise ValueError(f"episode {session!r} asked for a turn while another one of it is under way")
        if session not in self._open or session in self._released:
            if self._deterministic:
                raise ValueError(f"episode {session!r} was not opened; a deterministic engine must know all of a wave")
            self.open(session)

    async def _run(self) -> None:
        """The decode loop: admit, one forward pass, let the others go on."""
        while True:
            self._wake.clear()
            if not self._running and not (self._queue and await self._round_is_complete()):
                await self._wake.wait()
                continue
            try:
                self._step()
            except Exception as error:
                if not isinstance(error, ConfigError):
                    _log.exception("a forward pass of the generation engine failed")
                self._forget()
                self._fail(error)
            has_idle = len(self._open) > len(self._running) + len(self._queue)
            for _ in range(_NUM_TURNS_OF_LOOP if has_idle else 1):
                await asyncio.sleep(0)

    def _step(self) -> None:
        if not (self._deterministic and self._running):
            self._admit()
        pieces = self._pieces([request for request in self._running if self._is_filling(request)])
        decoding = [request for request in self._running if not self._is_filling(request)]
        if pieces or decoding:
            self._forward(decoding, pieces)
        if not self._running:
            self._end_round()

    async def _round_is_complete(self) -> bool:
        """Whether the queued requests may start."""
        if not self._deterministic:
            return True
        for _ in range(_NUM_TURNS_OF_LOOP):
            await asyncio.sleep(0)  # an episode that follows one that has just ended gets the time to be opened
        return len(self._queue) == len(self._open)

    def _admit(self) -> None:
        """Give rows to the requests that wait, the first come first."""
        if self._deterministic:
            self._queue = deque(sorted(self._queue, key=lambda request: request.session))
        waiting = self._queue
        self._queue = deque(request for request in waiting if not self._start(request))
        if not self._running and self._queue and self._rows.evict_idle():
            # Rather than to stand still, go on with this episode; another, that waits for its tool, is prefilled again.
            self._start(self._queue.popleft())

    def _start(self, request: Request) -> bool:
        """Give the request a row; False where there is none."""
        placement = self._rows.place(request.session, request.ids)
        if placement is None:
            return False
        request.row, request.source, request.num_shared = placement.row, placement.source, placement.num_shared
        self._running.append(request)
        self.stats.num_requests += 1
        self.stats.prompt_tokens += len(request.ids)
        self.stats.cached_tokens += placement.num_own
        self.stats.prefilled_tokens += 1  # the last one, which enters the first decode step
        self._drafter.read(request.session, request.ids)
        return True

    def _is_filling(self, request: Request) -> bool:
        return bool(self._rows.num_cached[request.row] < self._rows.num_known[request.row] - 1)

    def _pieces(self, filling: list[Request]) -> list[Piece]:
        """The next tokens of the requests that lack some."""
        rows = self._rows
        pieces: list[Piece] = []
        room = self._prefill_tokens
        for request in filling:
            if not self._take_shared(request) or room == 0:
                continue
            row, start = request.row, int(rows.num_cached[request.row])
            num = min(int(rows.num_known[row]) - 1 - start, room, self._decoder.max_piece(start))
            if num > 0:
                pieces.append(Piece(row, start, rows.tokens[row, start : start + num].tolist()))
                room -= num
        return pieces

    def _take_shared(self, request: Request) -> bool:
        """Copy what another row holds of the request's opening. False: that row is still being filled, wait for it."""
        rows, source, num = self._rows, request.source, request.num_shared
        if source is None:
            return True
        if rows.still_shares(request.row, source, num):
            if rows.num_cached[source] < num:
                if rows.busy[source]:
                    return False
            else:
                self._cache.copy(source, request.row, num)
                self.stats.shared_tokens += num - int(rows.num_cached[request.row])
                rows.num_cached[request.row] = num
        request.source = None
        return True

    def _forward(self, decoding: list[Request], pieces: list[Piece]) -> None:
        """One pass: the next tokens of `decoding`, and keys and values of `pieces`."""
        started = time.perf_counter()
        rows, stats = self._rows, self.stats
        queries = self._queries(decoding)
        num_queries = np.bincount(queries.rows, minlength=len(rows.num_known))
        blocks = rows.blocks(num_queries)
        lengths = rows.num_cached + num_queries
        for piece in pieces:
            lengths[piece.row] += len(piece.ids)
        self._cache.fit(lengths)
        logits = self._decoder.forward(queries, blocks, pieces, self._cache)
        for piece in pieces:
            rows.num_cached[piece.row] += len(piece.ids)
        num_prefilled = sum(len(piece.ids) for piece in pieces)
        if decoding:
            self._keep(decoding, queries, self._sample(decoding, queries, logits))
            stats.num_steps += 1
            if self._running:
                self._reorder(rows.plan_order(blocks, num_queries))
        stats.num_passes += 1
        stats.prefilled_tokens += num_prefilled
        seconds, share = time.perf_counter() - started, num_prefilled / (num_prefilled + len(queries.ids))
        stats.prefill_s += share * seconds
        stats.decode_s += (1 - share) * seconds

    def _queries(self, decoding: list[Request]) -> Queries:
        """Of each request its last token, which is not in the cache yet, and a draft of the next ones."""
        rows = self._rows
        at = np.array([request.row for request in decoding], dtype=np.int64)
        known = rows.num_known[at]
        salts = np.array([request.salt for request in decoding], dtype=np.uint64)
        most = np.array([request.max_tokens - len(request.token_ids) - 1 for request in decoding], dtype=np.int64)
        drafts = self._drafter.propose(salts, rows.windows(at, known), most)
        ids = np.concatenate([rows.tokens[at, known - 1][:, None], drafts.ids], axis=1)
        counts = drafts.counts + 1
        return Queries.of(at, rows.num_cached[at], counts, ids[np.arange(ids.shape[1]) < counts[:, None]])

    def _sample(self, decoding: list[Request], queries: Queries, logits: torch.Tensor) -> Sampled:
        """A token behind each query, each with the random number of its own place in the turn."""
        counts = queries.counts
        numbers = uniforms(
            np.repeat(np.array([request.key for request in decoding], dtype=np.uint64), counts),
            (np.repeat([len(request.token_ids) for request in decoding], counts) + queries.offsets).astype(np.uint64),
        )
        temperatures = np.array([request.sampling.temperature for request in decoding], dtype=np.float32)
        top_ps = np.array([request.sampling.top_p for request in decoding], dtype=np.float32)
        return sample(logits, np.repeat(temperatures, counts), np.repeat(top_ps, counts), numbers)

    def _keep(self, decoding: list[Request], queries: Queries, sampled: Sampled) -> None:
        """Take the tokens up to the first that differs from its draft.

        A draft holds no stop id and does not reach beyond a turn's last token: of what is kept only the last can end a turn.
        """
        rows = self._rows
        ids, logprobs = sampled.ids.cpu().numpy(), sampled.logprobs.cpu().numpy()
        num_new = queries.num_right(ids) + 1
        kept = queries.offsets < np.repeat(num_new, queries.counts)
        ids, logprobs, at, places = ids[kept], logprobs[kept], queries.rows[kept], queries.positions[kept] + 1
        rows.extend(at, places, ids)
        sessions = [request.session for request in decoding]
        salts = np.repeat(np.array([request.salt for request in decoding], dtype=np.uint64), num_new)
        self._drafter.learn(sessions, salts, rows.windows(at, places), ids, num_new)
        self.stats.sampled_tokens += len(ids)
        self.stats.drafted_tokens += len(queries.ids) - len(decoding)
        self.stats.accepted_tokens += len(ids) - len(decoding)
        ends = np.cumsum(num_new).tolist()
        all_ids, all_logprobs = ids.tolist(), logprobs.tolist()
        for request, start, end in zip(decoding, [0, *ends], ends, strict=False):
            self._deliver(request, all_ids[start:end], all_logprobs[start:end])

    def _deliver(self, request: Request, ids: list[int], logprobs: list[float]) -> None:
        """Hand out a request's tokens of a step and end its turn where it is over."""
        request.token_ids += ids
        request.logprobs += logprobs
        if request.on_tokens is not None:
            request.on_tokens(ids, logprobs)
        stopped = ids[-1] in self._stop_ids
        if stopped or len(request.token_ids) == request.max_tokens:
            self._drop(request)
            if not request.result.done():
                finish: Literal["stop", "length"] = "stop" if stopped else "length"
                request.result.set_result(Generation(request.token_ids, request.logprobs, finish))

    def _reorder(self, sources: dict[int, int] | None) -> None:
        """Bring the rows into a better order; `sources` says which row comes to the place of which."""
        if not sources:
            return
        self._cache.permute(sources, self._rows.num_cached.tolist())
        self._rows.permute(sources)
        target_of = {source: target for target, source in sources.items()}
        for request in self._running:
            request.row = target_of.get(request.row, request.row)
            if request.source is not None:
                request.source = target_of.get(request.source, request.source)
        self.stats.num_moved_rows += len(sources)

    def _drop(self, request: Request) -> None:
        """Take a request out, whether it waits, runs or is over."""
        if request in self._running:
            self._running.remove(request)
            self._rows.end_request(request.row)
            for other in self._running:
                if other.source == request.row:
                    other.source = None  # what it waited for may never come
        elif request in self._queue:
            self._queue.remove(request)

    def _end_round(self) -> None:
        """Apply the releases of a deterministic round."""
        for session in sorted(self._released):
            self._close(session)
        self._released.clear()

    def _close(self, session: str) -> None:
        self._open.discard(session)
        self._rows.release(session)
        self._drafter.forget(session)
        if self._deterministic and not self._open:  # a wave that is over leaves nothing to the next
            self._forget()
            self._drafter.reset()

    def _forget(self) -> None:
        """Nothing cached is valid any more."""
        self._rows.forget()
        self._cache.forget()

    def _fail(self, error: Exception) -> None:
        """Let every request know that it will get no answer."""
        for request in [*self._queue, *self._running]:
            self._drop(request)
            if not request.result.done():
                failure: Exception = RuntimeError(f"episode {request.session!r}: the generation engine failed: {error}")
                if isinstance(error, ConfigError):
                    failure = ConfigError(str(error))
                failure.__cause__ = error
                request.result.set_exception(failure)
