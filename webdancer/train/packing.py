"""The tokens of one forward pass, end to end, and how attention takes them.

A row that decodes brings its last token and the drafts behind it: its queries. They are packed without padding for all that
works token by token. Attention works on blocks of neighbouring rows, where each row has as many places as the longest of the
block has queries. Rows 0, 1 and 3 with 1, 3 and 2 queries, in one block:

    packed   a | b c d | e f
    placed   a . . | b c d | . . . | e f .      (`sources` 0 0 0 | 1 2 3 | 0 0 0 | 4 5 0, `places` 0 | 3 4 5 | 9 10)

An empty place repeats the first token and sees the first position; nothing reads what comes of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
BLOCK = 16
"""Rows whose attention is computed together, as far as the longest of them: more rows are more padding, fewer more calls."""


class Piece(NamedTuple):
    """Consecutive tokens of one row to be prefilled."""

    row: int
    start: int
    """Position of the first of them: so many are in the cache already."""
    ids: Sequence[int]


class Block(NamedTuple):
    """Neighbouring rows of the cache whose attention is computed together, over `length` positions."""

    first: int
    end: int
    length: int
    width: int = 1
    """Queries of a row, at most."""

    @property
    def num_places(self) -> int:
        return (self.end - self.first) * self.width


class Queries(NamedTuple):
    """The tokens whose logits are wanted, the decoding rows' one after the other."""

    ids: Ints  # [N]
    rows: Ints  # [N] rows of the cache
    positions: Ints  # [N]
    offsets: Ints  # [N] number of the token within its row's, from 0
    counts: Ints  # [R] tokens of each decoding row, in the order of `rows`

    @classmethod
    def of(cls, rows: Ints, starts: Ints, counts: Ints, ids: Ints) -> "Queries":
        """Of R rows [R] with `counts` tokens from the positions `starts` on; `ids` [N] are all of them."""
        firsts = np.cumsum(counts) - counts
        offsets = np.arange(len(ids)) - np.repeat(firsts, counts)
        return cls(ids, np.repeat(rows, counts), np.repeat(starts, counts) + offsets, offsets, counts)

    def num_right(self, sampled: Ints) -> Ints:
        """[R]: how many drafts of each row hold, where `sampled` [N] is what was drawn behind each token."""
        holds = np.zeros(len(self.ids), dtype=np.bool_)  # whether the token behind this one does, in the same row
        holds[:-1] = (sampled[:-1] == self.ids[1:]) & (self.offsets[1:] > 0)
        ends = np.flatnonzero(~holds)
        firsts = np.cumsum(self.counts) - self.counts
        return ends[np.searchsorted(ends, firsts)] - firsts


def all_tokens(queries: Queries, pieces: Sequence[Piece]) -> tuple[Ints, Ints, Ints]:
    """Ids, rows and positions [N] of all tokens of a pass: the queries, then the pieces."""
    nums = [len(piece.ids) for piece in pieces]
    ids = np.concatenate([queries.ids, *(np.asarray(piece.ids, dtype=np.int64) for piece in pieces)])
    rows = np.concatenate([queries.rows, np.repeat(np.array([piece.row for piece in pieces], dtype=np.int64), nums)])
    runs = (np.arange(piece.start, piece.start + num) for piece, num in zip(pieces, nums, strict=True))
    return ids, rows, np.concatenate([queries.positions, *runs])


class Layout(NamedTuple):
    """Where attention has the queries."""

    sources: Tensor  # [P] the packed token of each place
    positions: Tensor  # [P]
    places: Tensor  # [N] the place of each packed token


def lay_out(queries: Queries, blocks: Sequence[Block], device: torch.device) -> Layout:
    """The places of the queries in `blocks`, which cover their rows."""
    num_places = sum(block.num_places for block in blocks)
    first_place = np.zeros(max((block.end for block in blocks), default=0), dtype=np.int64)
    start = 0
    for block in blocks:
        first_place[block.first : block.end] = start + np.arange(block.end - block.first) * block.width
        start += block.num_places
    places = first_place[queries.rows] + queries.offsets
    sources, positions = np.zeros(num_places, dtype=np.int64), np.zeros(num_places, dtype=np.int64)
    sources[places] = np.arange(len(places))
    positions[places] = queries.positions
    return Layout(*(torch.from_numpy(values).to(device) for values in (sources, positions, places)))
