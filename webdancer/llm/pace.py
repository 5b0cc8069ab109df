"""Keeps calls to an endpoint apart, so that no minute holds more than the endpoint allows."""

import asyncio


class Pace:
    """So many units a minute (requests, or tokens), evenly: who has waited in turn may go, and moves the next one back.

    A bucket that holds a whole minute's units would let two minutes' worth through in the first one; this one holds none.

    Args:
        per_minute: None does not limit; `hold` still makes everyone wait.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._seconds_per_unit = 60.0 / per_minute if per_minute else 0.0
        self._free_at = 0.0  # in the event loop's time
        self._turn = asyncio.Lock()

    async def wait(self, amount: float = 1.0) -> None:
        """Wait until `amount` more units may begin. First come, first served."""
        now = asyncio.get_running_loop().time
        if self._turn.locked() or self._free_at > now():
            async with self._turn:
                while True:
                    left = self._free_at - now()
                    if left <= 0:
                        break
                    await asyncio.sleep(left)  # meanwhile it may have been moved
                self._take(amount, now())
        else:
            self._take(amount, now())

    def _take(self, amount: float, now: float) -> None:
        self._free_at = max(self._free_at, now) + amount * self._seconds_per_unit

    def correct(self, amount: float) -> None:
        """Count `amount` units more than were waited for, or fewer where it is negative."""
        self._free_at += amount * self._seconds_per_unit

    def hold(self, seconds: float) -> None:
        """Let nobody begin for so long, as a server has asked."""
        self._free_at = max(self._free_at, asyncio.get_running_loop().time() + seconds)
