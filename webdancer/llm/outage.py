"""Tells an endpoint that is down from calls that fail now and then.

A failed call is a result like any other: it is written with its reason and stays in the denominator. An endpoint that is down
(a wrong key, a spent quota, no network) is none: it would make all that is left a failure on disk, which no resumed run would
ask again.
"""

from typing import Generic, TypeVar

from webdancer.errors import ModelError

T = TypeVar("T")

MIN_FAILURES = 20
"""Failures in a row, with no success between them, that are taken for an endpoint that is down."""


class HeldBack(Generic[T]):
    """Failed items that wait to be written until the endpoint is seen to work.

    Args:
        what: names the items in the error's message.
        most: so many failures in a row end the stage.
        seen_working: an earlier attempt of the stage has had a success.
    """

    def __init__(self, what: str, *, most: int = MIN_FAILURES, seen_working: bool = False) -> None:
        self._what, self._most, self._seen_working = what, most, seen_working
        self._items: list[T] = []
        self._first_problem = ""

    def add(self, item: T, problem: str) -> None:
        """Hold a failed item back.

        Raises:
            ModelError: it is the last of too many in a row.
        """
        if not self._items:
            self._first_problem = problem
        self._items.append(item)
        if len(self._items) >= self._most:
            raise self._down()

    def succeed(self) -> list[T]:
        """The items held back, which may be written now, because something else succeeded."""
        self._seen_working = True
        return self._taken()

    def close(self) -> list[T]:
        """The items that are left when all is done.

        Raises:
            ModelError: nothing ever succeeded.
        """
        if self._items and not self._seen_working:
            raise self._down()
        return self._taken()

    def _taken(self) -> list[T]:
        items, self._items = self._items, []
        return items

    def _down(self) -> ModelError:
        return ModelError(
            f"the model failed for {len(self._items)} {self._what} in a row, first: {self._first_problem}. "
            "They are not written: mend the endpoint and run the same command again"
        )
