"""Keys and values of all episodes: one row per episode, in shelves of `BLOCK` rows.

Each shelf is as wide as the longest of its rows needs, so that its keys lie end to end: to multiply a part of them, oneDNN would
first copy it (two fifths of a step's time with AMX). Where a row outgrows its shelf, the shelf is built anew, somewhat wider.

Keys lie transposed ([d, T] for each head), since that is how a decode step reads them fastest on a CPU; values as [T, d].
"""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from webdancer.errors import ConfigError
from webdancer.train.packing import BLOCK, Ints

_ROUND = 64
"""Widths are multiples of it."""
_SPARE = 16
"""On a CPU a shelf gets this part more than it needs, and is built anew, narrower, when it has `_TOO_WIDE` times as much."""
_TOO_WIDE = 1.5
_FIRST_POSITIONS = 2048
"""Of a row on a GPU, before an episode needs more; then it doubles, since a GPU reads parts of a shelf as fast."""


class _Shelf(NamedTuple):
    keys: Tensor  # [L, BLOCK, K, d, T]
    values: Tensor  # [L, BLOCK, K, T, d]

    @property
    def width(self) -> int:
        return self.keys.shape[-1]


class Part(NamedTuple):
    """Where those tokens of a pass go that are of one shelf's rows."""

    shelf: int
    tokens: Tensor  # [n] which of the pass
    rows: Tensor  # [n] within the shelf
    positions: Tensor  # [n]


class KVCache:
    """Keys [K, d, T] and values [K, T, d] in each of L layers, of R rows with K heads and up to T positions.

    It only ever holds finite numbers: a masked position still goes into sums, weighed with 0.

    Raises:
        ConfigError: the device has no room for it, at the start or when it is to grow.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_rows: int,
        num_heads: int,
        head_dim: int,
        max_positions: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._num_rows, self._num_shelves = num_rows, -(-num_rows // BLOCK)
        self._max_positions = max_positions
        self._shape = (num_layers, BLOCK, num_heads, head_dim)
        self._dtype, self._device = dtype, device
        width = _rounded(_first_positions(max_positions, device))
        with self._told_if_full(num_rows, width):
            torch.empty(2 * self._num_shelves * math.prod(self._shape) * width, dtype=dtype, device=device)
        self._shelves = [self._new_shelf(width) for _ in range(self._num_shelves)]

    @property
    def widths(self) -> list[int]:
        """Positions of the rows of each shelf."""
        return [shelf.width for shelf in self._shelves]

    def forget(self) -> None:
        """Nothing held is needed any more. All shelves are as at the start: what is computed depends on their widths."""
        width = _rounded(_first_positions(self._max_positions, self._device))
        for index, shelf in enumerate(self._shelves):
            if shelf.width != width:
                self._shelves[index] = self._new_shelf(width)

    @torch.inference_mode()
    def fit(self, lengths: Ints) -> None:
        """Make each shelf as wide as its rows need, `lengths` [R] being the positions that each is to hold."""
        for index, needed in enumerate(np.maximum.reduceat(lengths, np.arange(0, len(lengths), BLOCK)).tolist()):
            width = self._shelves[index].width
            if needed > width:
                self._resize(index, needed if self._device.type == "cpu" else max(needed, 2 * width))
            elif self._device.type == "cpu" and width > _ROUND and width > _TOO_WIDE * self._roomy(needed):
                self._resize(index, needed)

    def parts(self, rows: Ints, positions: Ints) -> list[Part]:
        """The places of tokens of these rows [N] and positions [N], by shelves."""
        shelves = rows // BLOCK
        parts = []
        for shelf in np.unique(shelves).tolist():
            tokens = np.flatnonzero(shelves == shelf)
            places = (tokens, rows[tokens] % BLOCK, positions[tokens])
            parts.append(Part(shelf, *(torch.from_numpy(values).to(self._device) for values in places)))
        return parts

    @torch.inference_mode()
    def write(self, layer: int, parts: Sequence[Part], keys: Tensor, values: Tensor) -> None:
        """Put keys and values [N, K, d] of a pass into their places."""
        for part in parts:
            shelf = self._shelves[part.shelf]
            shelf.keys[layer][part.rows, :, :, part.positions] = keys[part.tokens]
            shelf.values[layer][part.rows, :, part.positions] = values[part.tokens]

    def reach(self, first: int, length: int) -> int:
        """How far attention of the rows from `first` on reads, where `length` is needed: all of a shelf if that is faster."""
        width = self._shelves[first // BLOCK].width
        return width if self._device.type == "cpu" and width <= _TOO_WIDE * length else length

    def block(self, layer: int, first: int, end: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys [n K, d, length] and values [n K, length, d] of the n rows from `first` to `end`, all in one shelf."""
        shelf, start = self._shelves[first // BLOCK], first % BLOCK
        places = slice(start, start + end - first)
        keys, values = shelf.keys[layer, places].flatten(0, 1), shelf.values[layer, places].flatten(0, 1)
        return keys[:, :, :length], values[:, :length]

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one row into another."""
        index, row = divmod(target, BLOCK)
        if length > self._shelves[index].width:
            self._resize(index, length)
        keys, values = self._row(source, length)
        self._shelves[index].keys[:, row, ..., :length] = keys
        self._shelves[index].values[:, row, :, :length] = values

    @torch.inference_mode()
    def permute(self, sources: dict[int, int], lengths: Sequence[int]) -> None:
        """Give each row `target` of `sources` the first `lengths[source]` positions of the row `sources[target]`.

        The targets and the sources are the same set of rows.
        """
        waiting = dict(sources)
        while waiting:
            first = target = next(iter(waiting))
            keys, values = (tensor.clone() for tensor in self._row(first, lengths[first]))
            while (source := waiting.pop(target)) != first:
                self.copy(source, target, lengths[source])
                target = source
            index, row = divmod(target, BLOCK)
            if lengths[first] > self._shelves[index].width:
                self._resize(index, lengths[first])
            self._shelves[index].keys[:, row, ..., : lengths[first]] = keys
            self._shelves[index].values[:, row, :, : lengths[first]] = values

    def _row(self, row: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys [L, K, d, length] and values [L, K, length, d] of a row."""
        shelf = self._shelves[row // BLOCK]
        return shelf.keys[:, row % BLOCK, ..., :length], shelf.values[:, row % BLOCK, :, :length]

    def _resize(self, index: int, needed: int) -> None:
        old = self._shelves[index]
        width = self._roomy(needed)
        with self._told_if_full(BLOCK, width):
            new = self._new_shelf(width, num_kept := min(width, old.width))
        new.keys[..., :num_kept] = old.keys[..., :num_kept]
        new.values[..., :num_kept, :] = old.values[..., :num_kept, :]
        self._shelves[index] = new

    def _roomy(self, needed: int) -> int:
        return _rounded(min(self._max_positions, needed + needed // _SPARE))

    def _new_shelf(self, width: int, num_kept: int = 0) -> _Shelf:
        """Zeros behind the first `num_kept` positions."""
        keys = torch.empty((*self._shape, width), dtype=self._dtype, device=self._device)
        values = torch.empty((*self._shape[:3], width, self._shape[3]), dtype=self._dtype, device=self._device)
        keys[..., num_kept:] = 0
        values[..., num_kept:, :] = 0
        return _Shelf(keys, values)

    @contextlib.contextmanager
    def _told_if_full(self, num_rows: int, width: int) -> Iterator[None]:
        """Say what was wanted, where there is no room for so many rows."""
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            layers, _, heads, head_dim = self._shape
            wanted = 2 * layers * num_rows * heads * head_dim * width * self._dtype.itemsize
            raise ConfigError(
                f"the KV cache: {num_rows} rows of {width} positions take {wanted / 2**30:,.1f} GiB, {self._device} has "
                f"{_free_bytes(self._device) / 2**30:,.1f} GiB free; lower policy.max_batch or policy.max_context"
            ) from None


def _first_positions(max_positions: int, device: torch.device) -> int:
    return 0 if device.type == "cpu" else min(max_positions, _FIRST_POSITIONS)


def _rounded(num_positions: int) -> int:
    return max(1, -(-num_positions // _ROUND)) * _ROUND


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
