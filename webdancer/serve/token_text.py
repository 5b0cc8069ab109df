"""The text of tokens as they come: none is handed out before it is certain that no stop string begins in it."""

from collections.abc import Callable, Sequence

from webdancer.llm.protocol import SampledToken

_INCOMPLETE = "\ufffd"


class TokenText:
    """Tokens with their texts, up to the first stop string.

    A character that is spread over several tokens belongs to the last of them, and a stop string may begin and end anywhere:

        ids     [ Ve ] [ lm ] [ E6 ] [ A1 ] [ A5 ]
        texts    "Ve"   "lm"    ""     ""    "桥"

    Args:
        decode: the text of token ids.
        stop: the texts before which to stop.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self._decode, self._stop = decode, [text for text in stop if text]
        self.tokens: list[SampledToken] = []
        """All so far; once `stopped`, only what stands before the stop string."""
        self.stopped = False
        self._tail = ""  # of the text: as much as can be the beginning of a stop string
        self._length = 0
        self._incomplete: list[int] = []  # the last tokens, whose character is not complete
        self._num_taken = self._length_taken = 0
        self._ended = False

    def add(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Read further tokens; what comes behind a stop string is left unread."""
        for id_, logprob in zip(ids, logprobs, strict=True):
            if self.stopped:
                return
            self._incomplete.append(id_)
            text = self._decode(self._incomplete)
            if text.endswith(_INCOMPLETE):
                text = ""
            else:
                self._incomplete.clear()
            self._append(SampledToken(id_, text, logprob))

    def end(self) -> None:
        """Nothing follows: a character that is not complete gets the text that there is, and nothing is held back any more."""
        if self._incomplete:
            self._append(self.tokens.pop()._replace(text=self._decode(self._incomplete)))
            self._incomplete.clear()
        self._tail = ""
        self._ended = True

    def take(self) -> list[SampledToken]:
        """The tokens that are certain by now and were not taken yet; one without text only with the next that has one."""
        certain = self._length - self._held()
        taken: list[SampledToken] = []
        waiting: list[SampledToken] = []
        for token in self.tokens[self._num_taken : len(self.tokens) - len(self._incomplete)]:
            if self._length_taken + len(token.text) > certain:
                break
            self._length_taken += len(token.text)
            waiting.append(token)
            if token.text or self._ended:
                taken += waiting
                waiting = []
        self._num_taken += len(taken)
        return taken

    def _held(self) -> int:
        """Characters at the end with which a stop string may begin."""
        starts = (len(self._tail) - n for n in range(len(self._tail), 0, -1))
        found = (at for at in starts if any(stop.startswith(self._tail[at:]) for stop in self._stop))
        at = None if self.stopped else next(found, None)
        return 0 if at is None else len(self._tail) - at

    def _append(self, token: SampledToken) -> None:
        self.tokens.append(token)
        before, seen = self._length - len(self._tail), self._tail + token.text
        self._length += len(token.text)
        found = [at for stop in self._stop if (at := seen.find(stop)) >= 0]
        if found:
            self._cut(before + min(found))
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        self._tail = seen[len(seen) - min(longest, len(seen)) :]

    def _cut(self, end: int) -> None:
        """Keep the first `end` characters; the token in which they end keeps what stands before."""
        self.stopped = True
        while self.tokens and (start := self._length - len(self.tokens[-1].text)) >= end:
            self.tokens.pop()
            self._length = start
        if self.tokens:
            last = self.tokens.pop()
            kept = last._replace(text=last.text[: len(last.text) - (self._length - end)])
            self.tokens.append(kept)
            self._length = end
