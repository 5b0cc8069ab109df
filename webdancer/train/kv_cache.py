"""Keys and values of all episodes: one row per episode, as many positions as the longest of them has needed so far.

Keys lie transposed ([d, T] for each head), since that is how a decode step reads them fastest on a CPU; values as [T, d].
"""

import contextlib
import math
import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from webdancer.errors import ConfigError

_PAD = 64
"""Positions that are never used. Rows whose distance is a power of two would fall onto the same few sets of the CPU's caches."""
_FIRST_POSITIONS = 2048
"""Of a row on a GPU, before an episode needs more. On a CPU memory is taken only where something gets written."""


class KVCache:
    """Keys [L, R, K, d, T] and values [L, R, K, T, d] of L layers, R rows, K heads, T positions.

    It starts as zeros and only ever holds finite numbers: a masked position still goes into sums, weighed with 0.

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
        self._max_positions = max_positions
        self.width = _width(_first_positions(max_positions, device))
        shape = (num_layers, num_rows, num_heads, head_dim, self.width)
        with _told_if_full(shape, dtype, device):
            self.keys = _zeros(shape, dtype, device)
            self.values = _zeros((*shape[:3], self.width, head_dim), dtype, device)

    @torch.inference_mode()
    def reserve(self, num_positions: int) -> None:
        """Make room for so many positions in each row, at least twice as many as before if there are not."""
        if num_positions <= self.width:
            return
        before, width = self.width, _width(min(self._max_positions, max(num_positions, 2 * self.width)))
        shape, dtype, device = (*self.keys.shape[:-1], width), self.keys.dtype, self.keys.device
        with _told_if_full(shape, dtype, device):
            keys = _zeros(shape, dtype, device)
            keys[..., :before] = self.keys[..., :before]
            self.keys = keys
            values = _zeros((*shape[:3], width, shape[3]), dtype, device)
            values[:, :, :, :before] = self.values
            self.values, self.width = values, width

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
    num_bytes = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(num_bytes, dtype=np.uint8)).view(dtype).view(shape)


@contextlib.contextmanager
def _told_if_full(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Say what was wanted, where there is no room for keys of this shape and as many values."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        wanted, free = 2 * math.prod(shape) * dtype.itemsize, _free_bytes(device)
        raise ConfigError(
            f"the KV cache: {shape[1]} rows of {shape[-1]} positions take {wanted / 2**30:,.1f} GiB, {device} has "
            f"{free / 2**30:,.1f} GiB free; lower policy.max_batch or policy.max_context"
        ) from None


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
