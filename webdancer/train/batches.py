"""Token sequences become padded micro-batches (paper, sections 3.3 and 4.1: both losses run over the policy's own tokens).

Rows are padded on the right and no attention mask is needed: attention is causal, so that no real token sees padding, and
no sequence sees another, because every row holds exactly one. What padding costs is kept small by cutting the sequences,
sorted by length, where the padded area is smallest.

    token_ids            mask (written by the policy)     predicted from
    [ u u a a E u a E ]  [ 0 0 1 1 1 0 1 1 ]              position t-1 predicts token t
    [ u a a E . . . . ]  [ 0 1 1 1 . . . . ]

Lengths from ROUND on are rounded up to its multiples: torch's matrix library on CPUs makes a program for every new shape,
which takes longer than to run it, so that there had better be few shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_PASS_COST_TOKENS = 128
"""What one more forward and backward pass costs beside its tokens, in tokens (measured on a CPU with the tiny model)."""


ROUND = 64
"""Lengths of rows in a batch, unless all are shorter, and rows of the output layer are multiples of it."""


class Trainable(Protocol):
    """Anything with token ids and a mask of the same length: a `TokenSequence`, a `records.Sample`."""

    @property
    def token_ids(self) -> Sequence[int]: ...
    @property
    def mask(self) -> Sequence[int]: ...  # bools, or 0 and 1


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass. B rows, T positions, N masked tokens, counted row by row."""

    token_ids: Tensor
    """[B, T] int64, padded on the right with 0."""
    mask: Tensor
    """[B, T] bool: True where the policy wrote the token; False on padding."""
    rows: tuple[int, ...]
    """[B] index of each row's sequence in the list that the batch was made from."""
    num_tokens: int
    """Tokens without padding."""
    num_masked: int
    """N."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(self.token_ids.to(device), self.mask.to(device), self.rows, self.num_tokens, self.num_masked)

    def per_token(self, values: Sequence[float]) -> Tensor:
        """[N] one value per sequence (an advantage, say), repeated for each masked token. `values` is indexed by `rows`."""
        device = self.mask.device
        each = torch.tensor([values[row] for row in self.rows], dtype=torch.float32, device=device)  # [B]
        return each.repeat_interleave(self.mask.sum(dim=1))

    def masked(self, values: Sequence[Sequence[float]]) -> Tensor:
        """[N] the masked tokens' values out of one list per sequence, each as long as the sequence (old logprobs, say)."""
        padded = torch.zeros(self.mask.shape, dtype=torch.float32)
        for number, row in enumerate(self.rows):
            padded[number, : len(values[row])] = torch.tensor(values[row], dtype=torch.float32)
        return padded.to(self.mask.device)[self.mask]


def make_batch(sequences: Sequence[Trainable], rows: Sequence[int]) -> Batch:
    """Pad the sequences at `rows` to the longest of them, rounded up.

    Raises:
        ValueError: a sequence's mask has another length than its ids, or holds its first token, which nothing predicts.
    """
    length = _rounded(max(len(sequences[row].token_ids) for row in rows))
    token_ids = torch.zeros((len(rows), length), dtype=torch.int64)
    mask = torch.zeros((len(rows), length), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids, written = sequences[row].token_ids, sequences[row].mask
        if len(ids) != len(written):
            raise ValueError(
                f"sequence {row}: got {len(ids)} token ids and {len(written)} mask values, expected as many"
            )
        if written and written[0]:
            raise ValueError(f"sequence {row}: its first token is marked as the policy's, but nothing comes before it")
        token_ids[number, : len(ids)] = torch.tensor(ids)
        mask[number, : len(ids)] = torch.tensor(written)
    num_tokens = sum(len(sequences[row].token_ids) for row in rows)
    return Batch(token_ids, mask, tuple(rows), num_tokens, int(mask.sum()))


def micro_batches(sequences: Sequence[Trainable], *, max_tokens: int, rows: Sequence[int] | None = None) -> list[Batch]:
    """All sequences (or those at `rows`) in padded batches of like lengths, in the split that costs least.

    Args:
        max_tokens: bound on the padded area B·T of a batch; a sequence longer than that makes a batch of its own.
    """
    chosen = range(len(sequences)) if rows is None else rows
    ordered = sorted(chosen, key=lambda row: (len(sequences[row].token_ids), row))
    lengths = [_rounded(len(sequences[row].token_ids)) for row in ordered]
    return [make_batch(sequences, ordered[start:end]) for start, end in cheapest_cuts(lengths, max_tokens=max_tokens)]


def _rounded(length: int) -> int:
    return length if length < ROUND else -(-length // ROUND) * ROUND


def cheapest_cuts(lengths: Sequence[int], *, max_tokens: int) -> list[tuple[int, int]]:
    """Where to cut ascending `lengths`, so that padded area plus the cost of a pass is least: dynamic programme over ends."""
    best: list[tuple[int, int]] = [(0, 0)]  # of the first `end` sequences: (cost, start of the last batch)
    for end in range(1, len(lengths) + 1):
        candidates = []
        for start in range(end - 1, -1, -1):
            area = (end - start) * lengths[end - 1]
            if area > max_tokens and start < end - 1:
                break
            candidates.append((best[start][0] + area + _PASS_COST_TOKENS, start))
        best.append(min(candidates))
    cuts = []
    end = len(lengths)
    while end > 0:
        start = best[end][1]
        cuts.append((start, end))
        end = start
    return cuts[::-1]


def share_out(lengths: Sequence[int], *, num_shares: int) -> list[list[int]]:
    """Deal sequences to processes: longest first, each to the share with the fewest tokens so far. Shares may be empty."""
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    totals = [0] * num_shares
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        lightest = totals.index(min(totals))
        shares[lightest].append(index)
        totals[lightest] += lengths[index]
    return shares
