"""Drafts for the decoder: guesses of the next tokens that cost no model.

What a policy writes repeats itself: frames of calls, names and addresses from what it has read, phrases that all episodes
share. A draft is read off tables of what followed the last tokens before: in the episode itself (what it read and wrote) and in
the turns of all episodes. The engine computes the row's last token and its draft in one forward pass, and keeps the draft as
far as it is what would have been sampled anyway; so a draft may be wrong, and costs time when it is.

For each context (the last 3 or the last 1 token of the episode, the last 4 or 2 of any turn) the table holds the token that came
behind it last, and how often in a row it did. How much such an entry can be trusted is counted as tokens are sampled, by
context and by that number, whether or not it was drafted. A draft grows by the most trusted entry as long as all of it is more
likely right than `_MIN_TRUST`: text without repetition gets no drafts, and a row gets longer ones the better it can be foretold.

All rows are looked up at once, so that a step costs some dozen array operations. The table has a fixed size; an entry that
falls onto another's slot takes it over.
"""

import zlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from webdancer.train.packing import Ints

_Uints = npt.NDArray[np.uint64]

_OWN, _SHARED = (3, 1), (4, 2)
"""Lengths of the contexts. Others (1 to 3 of each kind, of 1 to 8 tokens) changed the gain by 3 % at most, simulated."""
WINDOW = max(*_OWN, *_SHARED)
"""So many tokens are looked at."""
_NUM_OWN, _NUM_CONTEXTS = len(_OWN), len(_OWN) + len(_SHARED)
_MAX_REPEATS = 2
_MIN_TRUST = 0.4
"""A token more costs about a third of what a row's pass with one does. 0.6 was 7 % slower in rollouts (with AMX)."""
_MEMORY = 0.995
"""Weight of what was seen one token of the same kind ago."""
_TABLE_BITS = 20
_HASH = np.uint64(0x9E3779B97F4A7C15)


def _multipliers() -> _Uints:
    """[WINDOW, contexts]: odd numbers; 0 for tokens that a context does not reach."""
    numbers = np.random.default_rng(0).integers(1 << 62, size=(WINDOW, _NUM_CONTEXTS), dtype=np.uint64) * np.uint64(2)
    reach = np.array([*_OWN, *_SHARED])
    reached = np.arange(WINDOW)[:, None] >= WINDOW - reach
    multipliers: _Uints = np.where(reached, numbers + np.uint64(1), np.uint64(0))
    return multipliers


_MULTIPLIERS = _multipliers()
_CONTEXT_SALTS = np.arange(1, _NUM_CONTEXTS + 1, dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93)


class Drafts(NamedTuple):
    """Guesses for R rows."""

    ids: Ints  # [R, k]
    counts: Ints  # [R] how many of `ids` are meant


class Drafter:
    """The tables.

    Args:
        vocab_size: token ids are below it.
        stop_ids: never drafted, since nothing comes behind them.
        max_draft: tokens of a draft; 0 drafts nothing.
    """

    def __init__(self, *, vocab_size: int, stop_ids: Collection[int], max_draft: int) -> None:
        self.max_draft = max_draft
        self._stops = np.zeros(vocab_size, dtype=np.bool_)
        self._stops[[id_ for id_ in stop_ids if id_ < vocab_size]] = True
        size = 1 << _TABLE_BITS if max_draft else 1
        self._checks = np.zeros(size, dtype=np.uint32)
        self._next = np.zeros(size, dtype=np.int32)
        self._repeats = np.zeros(size, dtype=np.int8)
        self._num_kinds = _NUM_CONTEXTS * (_MAX_REPEATS + 1)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._checks[:] = 0
        self._num_read: dict[str, int] = {}
        self._num_tried = np.full(self._num_kinds, 2.0)
        self._num_right = np.full(self._num_kinds, 0.5)  # not trusted before it has been right

    def read(self, session: str, ids: Sequence[int]) -> None:
        """Take in the episode's tokens `ids`, as far as they are new."""
        num_read = self._num_read.get(session, 0)
        if not self.max_draft or len(ids) <= num_read:
            return
        self._num_read[session] = len(ids)
        start = max(num_read, WINDOW)
        known = np.asarray(ids[start - WINDOW :], dtype=np.int64)
        if len(known) <= WINDOW:
            return
        windows = np.lib.stride_tricks.sliding_window_view(known[:-1], WINDOW)
        keys = _keys(windows, np.full(len(windows), salt_of(session), dtype=np.uint64))[:, :_NUM_OWN]
        self._write(keys, np.repeat(known[WINDOW:], _NUM_OWN).reshape(keys.shape))

    def forget(self, session: str) -> None:
        """The episode is over."""
        self._num_read.pop(session, None)

    def propose(self, salts: _Uints, windows: Ints, most: Ints) -> Drafts:
        """Guesses of what follows.

        Args:
            salts: [R] `salt_of` the rows' episodes.
            windows: [R, WINDOW] their last tokens.
            most: [R] tokens that are wanted at most.
        """
        num_rows = len(windows)
        ids, counts = np.zeros((num_rows, self.max_draft), dtype=np.int64), np.zeros(num_rows, dtype=np.int64)
        trust = np.append(self._num_right / self._num_tried, 0.0)  # the last: no entry
        rows, share = np.arange(num_rows), np.ones(num_rows)
        for place in range(self.max_draft):
            tokens, kinds = self._look_up(_keys(windows, salts))
            trusted = trust[kinds]
            best = trusted.argmax(1)
            each = np.arange(len(best))
            token, share = tokens[each, best], share * trusted[each, best]
            goes_on = (share >= _MIN_TRUST) & ~self._stops[token] & (most > place)
            if not goes_on.any():
                break
            rows, share, token = rows[goes_on], share[goes_on], token[goes_on]
            salts, most = salts[goes_on], most[goes_on]
            windows = np.concatenate([windows[goes_on, 1:], token[:, None]], axis=1)
            ids[rows, place] = token
            counts[rows] += 1
        return Drafts(ids, counts)

    def learn(self, sessions: Sequence[str], salts: _Uints, windows: Ints, tokens: Ints, counts: Ints) -> None:
        """Take in what was sampled: `tokens` [N], each behind its `windows` [N, WINDOW].

        Args:
            sessions: the R episodes.
            salts: [N] of each token's episode.
            counts: [R] how many of the tokens are each episode's.
        """
        if not self.max_draft:
            return
        for session, count in zip(sessions, counts.tolist(), strict=True):
            if session in self._num_read:
                self._num_read[session] += count
        keys = _keys(windows, salts)
        guesses, kinds = self._look_up(keys)
        right = guesses == tokens[:, None]
        tried = np.bincount(kinds.ravel(), minlength=self._num_kinds + 1)[:-1]
        kept = _MEMORY**tried
        self._num_tried = self._num_tried * kept + tried
        self._num_right *= kept
        self._num_right += np.bincount(kinds.ravel(), right.ravel(), minlength=self._num_kinds + 1)[:-1]
        self._write(keys, np.repeat(tokens, _NUM_CONTEXTS).reshape(keys.shape))

    def _look_up(self, keys: _Uints) -> tuple[npt.NDArray[np.int32], Ints]:
        """The token and the kind of each entry; the last kind where there is none."""
        slots, checks = _slots(keys)
        kinds = np.arange(keys.shape[1]) * (_MAX_REPEATS + 1) + self._repeats[slots]
        kinds[self._checks[slots] != checks] = self._num_kinds
        return self._next[slots], kinds

    def _write(self, keys: _Uints, tokens: Ints) -> None:
        """Enter what came behind the contexts. Where the same context is written twice at once, the last one counts."""
        slots, checks = _slots(keys)
        repeats = self._repeats[slots]
        known = self._checks[slots] == checks
        same = known & (self._next[slots] == tokens)
        # What had come every time is kept once, when something else comes.
        kept = known & ~same & (repeats == _MAX_REPEATS)
        self._checks[slots] = checks
        self._next[slots] = np.where(kept, self._next[slots], tokens)
        self._repeats[slots] = np.where(same, np.minimum(repeats + 1, _MAX_REPEATS), 0)


def salt_of(session: str) -> int:
    """What tells an episode's contexts from those of others."""
    return zlib.crc32(session.encode())


def _keys(windows: Ints, salts: _Uints) -> _Uints:
    """[N, contexts]: a hash of each context of each window."""
    keys: _Uints = windows.astype(np.uint64) @ _MULTIPLIERS
    keys[:, :_NUM_OWN] += (salts * _HASH)[:, None]
    keys += _CONTEXT_SALTS
    keys ^= keys >> np.uint64(29)
    keys *= _HASH
    return keys


def _slots(keys: _Uints) -> tuple[Ints, npt.NDArray[np.uint32]]:
    """The slot of each key, and what tells it from others that fall onto the same."""
    return (keys >> np.uint64(64 - _TABLE_BITS)).astype(np.int64), (keys >> np.uint64(8)).astype(np.uint32)
