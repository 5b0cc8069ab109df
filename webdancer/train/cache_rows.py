"""Which episode holds which row of the KV cache, which tokens lie there, and what a new prompt can take from them.

A row keeps its tokens after its episode has ended, until another needs the row: whoever comes with the same opening (a rollout
of the same question, the same system prompt, the next call of a conversation) goes on from there.

Rows are `busy` (a request is prefilled or decoded), idle (the episode waits for its tool), or free. Decoding runs over the
rows from the first to the last busy one, in blocks that attend as far as their longest busy row. So busy rows should stand at
the front, those of like length together; `plan_order` says how, once what is lost has grown to what moving costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from webdancer.train.drafts import WINDOW
from webdancer.train.packing import BLOCK, Block, Ints

_ROUND = 16
"""Lengths of blocks are multiples of it."""
_MIN_SHARE = 8
"""Copying fewer tokens than this from another row is not worth it."""
_MOVE_COST = 1.5
"""Moving a position costs so many times what attending to it in one step does (measured)."""


class Placement(NamedTuple):
    """Where a prompt goes, and what it finds there."""

    row: int
    num_own: int
    """Leading tokens that the row held already."""
    source: int | None
    """Another row that holds more of them, or will when its own prefill is done."""
    num_shared: int
    """Leading tokens to be copied from `source`."""


class CacheRows:
    """The bookkeeping of all rows.

    Attributes:
        tokens: [rows, max_context]; the ids of each row.
        num_known: [rows]; how many of them there are.
        num_cached: [rows]; how many of them have keys and values in the cache. All but the last one, once decoding runs.
        busy: [rows]; a request is under way.
    """

    def __init__(self, num_rows: int, max_context: int) -> None:
        self.tokens = np.zeros((num_rows, max_context), dtype=np.int64)
        self.num_known = np.zeros(num_rows, dtype=np.int64)
        self.num_cached = np.zeros(num_rows, dtype=np.int64)
        self.busy = np.zeros(num_rows, dtype=np.bool_)
        self.owner: list[str | None] = [None] * num_rows
        self._row_of: dict[str, int] = {}
        self._last_used = np.zeros(num_rows, dtype=np.int64)
        self._clock = 0
        self._waste = 0.0

    def place(self, session: str, ids: Sequence[int]) -> Placement | None:
        """Find a row for a prompt and mark it busy; None where all rows belong to others.

        The last token is never taken from the cache: its logits are wanted.
        """
        prompt = np.asarray(ids, dtype=np.int64)
        matches = np.minimum(self._matches(prompt), len(prompt) - 1)
        ready = np.minimum(matches, self.num_cached)
        row = self._row_of.get(session)
        if row is None:
            row = self._free_row(ready)
            if row is None:
                return None
            self._row_of[session], self.owner[row] = row, session
        num_own = int(ready[row])
        coming = np.where(self.busy, np.minimum(matches, self.num_known - 1), ready)
        coming[row] = 0
        best_coming, best_ready = int(coming.argmax()), int(np.where(np.arange(len(ready)) == row, 0, ready).argmax())
        source: int | None = best_coming if coming[best_coming] >= ready[best_ready] + _MIN_SHARE else best_ready
        num_shared = int(coming[source])
        if num_shared < num_own + _MIN_SHARE:
            source, num_shared = None, 0
        self.tokens[row, : len(prompt)] = prompt
        self.num_known[row], self.num_cached[row] = len(prompt), num_own
        self.busy[row] = True
        self._touch(row)
        return Placement(row, num_own, source, num_shared)

    def still_shares(self, row: int, source: int, num_shared: int) -> bool:
        """Whether `source` still begins as `row` does; it may have been given to another episode."""
        same = np.array_equal(self.tokens[row, :num_shared], self.tokens[source, :num_shared])
        return same and bool(self.num_known[source] >= num_shared)

    def windows(self, rows: Ints, ends: Ints) -> Ints:
        """[N, WINDOW]: the tokens of each of `rows` [N] before the positions `ends`; the first one stands for what is missing."""
        windows: Ints = self.tokens[rows[:, None], np.maximum(ends[:, None] + np.arange(-WINDOW, 0), 0)]
        return windows

    def extend(self, rows: Ints, positions: Ints, ids: Ints) -> None:
        """Tokens that were sampled. All of a row but its last are in the cache, as those before them are."""
        self.tokens[rows, positions] = ids
        self.num_known[rows] = positions + 1
        self.num_cached[rows] = positions

    def end_request(self, row: int) -> None:
        """The request is over; the episode keeps the row."""
        self.busy[row] = False
        self._touch(row)

    def release(self, session: str) -> None:
        """The episode is over; its row is free, its tokens stay for who can use them."""
        row = self._row_of.pop(session, None)
        if row is not None:
            self.owner[row] = None
            self.busy[row] = False
            self.num_known[row] = self.num_cached[row]

    def evict_idle(self) -> bool:
        """Take the row from the episode that has waited longest for its tool; False where there is none."""
        idle = [row for row, owner in enumerate(self.owner) if owner is not None and not self.busy[row]]
        if not idle:
            return False
        session = self.owner[min(idle, key=lambda row: int(self._last_used[row]))]
        assert session is not None
        self.release(session)
        return True

    def forget(self) -> None:
        """Nothing in the cache is valid any more. Episodes keep their rows; free rows are as new."""
        self.num_cached[:] = 0
        free = [row for row, owner in enumerate(self.owner) if owner is None]
        self.num_known[free] = 0
        self._last_used[free] = 0
        self._waste = 0.0

    def blocks(self, num_queries: Ints) -> list[Block]:
        """What attention of a step covers, where each row [rows] has so many new tokens; 0: it does not decode."""
        rows = num_queries.nonzero()[0]
        blocks = []
        for first in range(0, int(rows[-1]) + 1 if len(rows) else 0, BLOCK):
            members = rows[(rows >= first) & (rows < first + BLOCK)]
            if len(members):
                longest = int((self.num_cached[members] + num_queries[members]).max())
                length, width = -(-longest // _ROUND) * _ROUND, int(num_queries[members].max())
                blocks.append(Block(first, min(first + BLOCK, int(rows[-1]) + 1), length, width))
        return blocks

    def plan_order(self, blocks: Sequence[Block], num_queries: Ints) -> dict[int, int] | None:
        """Target row → source row for the rows that should move before the next step; None where it does not pay yet.

        Args:
            blocks: of the step that is over, which had `num_queries` [rows].
        """
        rows = self.busy.nonzero()[0]
        decoding = num_queries.nonzero()[0]
        needed = float(self.num_cached[decoding].sum() + len(decoding))
        self._waste += sum((block.end - block.first) * block.length for block in blocks) - needed
        if self._waste < _MOVE_COST * needed:
            return None
        self._waste = 0.0
        by_length = rows[np.argsort(self.num_cached[rows], kind="stable")]
        order = np.full(len(self.owner), -1)
        for first in range(0, len(by_length), BLOCK):
            members = by_length[first : first + BLOCK]
            places = np.arange(first, first + len(members))
            order[members[np.isin(members, places)]] = members[np.isin(members, places)]
            order[places[order[places] < 0]] = members[~np.isin(members, places)]
        others = [row for row in range(len(order)) if not self.busy[row]]
        for row in [row for row in others if order[row] < 0]:
            order[row] = row
            others.remove(row)
        order[order < 0] = others
        return {target: int(source) for target, source in enumerate(order) if target != source}

    def permute(self, sources: dict[int, int]) -> None:
        """Give each target what its source had; targets and sources are the same set of rows."""
        new, old = list(sources.keys()), list(sources.values())
        for values in (self.tokens, self.num_known, self.num_cached, self.busy, self._last_used):
            values[new] = values[old]
        owners = [self.owner[row] for row in old]
        for row, owner in zip(new, owners, strict=True):
            self.owner[row] = owner
            if owner is not None:
                self._row_of[owner] = row

    def _matches(self, prompt: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """[rows]: how many of the prompt's leading tokens each row begins with."""
        differs = self.tokens[:, : len(prompt)] != prompt
        differs |= np.arange(len(prompt)) >= self.num_known[:, None]
        return np.where(differs.any(1), differs.argmax(1), len(prompt))

    def _free_row(self, ready: npt.NDArray[np.int64]) -> int | None:
        """A free row that the prompt continues, if it keeps at least half of it; else the one unused for longest."""
        free = np.array([row for row, owner in enumerate(self.owner) if owner is None], dtype=np.int64)
        if not len(free):
            return None
        best = int(free[ready[free].argmax()])
        if ready[best] > 0 and 2 * ready[best] >= self.num_cached[best]:
            return best
        return int(free[np.lexsort((free, self._last_used[free]))[0]])

    def _touch(self, row: int) -> None:
        self._clock += 1
        self._last_used[row] = self._clock
