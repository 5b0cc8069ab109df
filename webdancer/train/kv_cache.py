"""Keys and values of all episodes: one row per episode, as many positions as the longest of them has needed so far.

Keys lie transposed ([d, T] for each head), since that is how a decode step reads them fastest on a CPU; values as [T, d].
"""

import numpy as np
import torch
from torch import Tensor

_PAD = 64
"""Positions that are never used. Rows whose distance is a power of two would fall onto the same few sets of the CPU's caches."""
_FIRST_POSITIONS = 2048
"""Of a row on a GPU, before an episode needs more. On a CPU memory is taken only where something gets written."""


class KVCache:
    """Keys [L, R, K, d, T] and values [L, R, K, T, d] of L layers, R rows, K heads, T positions.

    It starts as zeros and only ever holds finite numbers: a masked position still goes into sums, weighed with 0.
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
        self._max_positions = max_positions
        self.width = _width(_first_positions(max_positions, device))
        self.keys = _zeros((num_layers, num_rows, num_heads, head_dim, self.width), dtype, device)
        self.values = _zeros((num_layers, num_rows, num_heads, self.width, head_dim), dtype, device)

    @torch.inference_mode()
    def reserve(self, num_positions: int) -> None:
        """Make room for so many positions in each row, at least twice as many as before if there are not."""
        if num_positions <= self.width:
            return
        before, self.width = self.width, _width(min(self._max_positions, max(num_positions, 2 * self.width)))
        keys = _zeros((*self.keys.shape[:-1], self.width), self.keys.dtype, self.keys.device)
        keys[..., :before] = self.keys
        self.keys = keys
        values = _zeros((*self.values.shape[:3], self.width, self.values.shape[-1]), keys.dtype, keys.device)
        values[:, :, :, :before] = self.values
        self.values = values

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one row into another."""
        self.keys[:, target, ..., :length] = self.keys[:, source, ..., :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    @torch.inference_mode()
    def permute(self, sources: dict[int, int], lengths: list[int]) -> None:
        """Give each row `target` of `sources` the first `lengths[source]` positions of the row `sources[target]`.

        The targets and the sources are the same set of rows.
        """
        waiting = dict(sources)
        while waiting:
            first = target = next(iter(waiting))
            length = lengths[first]
            keys = self.keys[:, first, ..., :length].clone()
            values = self.values[:, first, :, :length].clone()
            while (source := waiting.pop(target)) != first:
                self.copy(source, target, lengths[source])
                target = source
            self.keys[:, target, ..., :length] = keys
            self.values[:, target, :, :length] = values


def _first_positions(max_positions: int, device: torch.device) -> int:
    return max_positions if device.type == "cpu" else min(max_positions, _FIRST_POSITIONS)


def _width(num_positions: int) -> int:
    return -(-num_positions // _PAD) * _PAD + _PAD


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU memory is taken only where something gets written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    return torch.from_numpy(np.zeros(num_bytes, dtype=np.uint8)).view(dtype).view(shape)
